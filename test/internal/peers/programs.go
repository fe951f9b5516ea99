package peers

// program says how one peer is built.
type program struct {
	family  string // folder below test/peers
	pkg     string // import path of its main package
	ldflags string // besides strip
	cgo     bool
	static  bool // without cgo, for a root directory that has no libraries
}

const (
	strip              = "-s -w"
	kubernetesMinor    = "37"
	kubernetesPatch    = "1"
	kubernetesOldMinor = "36"
	kubernetesOldPatch = "3"
)

// kubernetesFlags stamps the version that a release build carries. Without
// it the programs call themselves v0.0.0, which version-skew checks refuse.
func kubernetesFlags(minor, patch string) (flags string) {
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags += " -X " + pkg + ".gitVersion=v1." + minor + "." + patch +
			" -X " + pkg + ".gitMajor=1" +
			" -X " + pkg + ".gitMinor=" + minor +
			" -X " + pkg + ".gitTreeState=clean"
	}
	return flags
}

func kubernetes(name string) program {
	return program{family: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kubernetesFlags(kubernetesMinor, kubernetesPatch)}
}

func kubernetesOld(name string) program {
	return program{family: "kubernetes-1.36", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kubernetesFlags(kubernetesOldMinor, kubernetesOldPatch)}
}

var programs = map[string]program{
	"etcd":    {family: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
	"etcdctl": {family: "etcd", pkg: "go.etcd.io/etcd/etcdctl/v3"},
	"etcdutl": {family: "etcd", pkg: "go.etcd.io/etcd/etcdutl/v3"},

	"etcd-3.5": {family: "etcd-3.5", pkg: "go.etcd.io/etcd/server/v3"},
	"etcd-3.6": {family: "etcd-3.6", pkg: "go.etcd.io/etcd/server/v3"},

	"kube-apiserver":          kubernetes("kube-apiserver"),
	"kube-controller-manager": kubernetes("kube-controller-manager"),
	"kube-scheduler":          kubernetes("kube-scheduler"),
	"kubectl":                 kubernetes("kubectl"),

	// In a module of its own, and static as its releases are.
	"kubeadm": {family: "kubeadm", pkg: "k8s.io/kubernetes/cmd/kubeadm", ldflags: kubernetesFlags(kubernetesMinor, kubernetesPatch), static: true},

	"kube-apiserver-1.36":          kubernetesOld("kube-apiserver"),
	"kube-controller-manager-1.36": kubernetesOld("kube-controller-manager"),
	"kube-scheduler-1.36":          kubernetesOld("kube-scheduler"),

	// What kind makes of a configuration, by its own code; our own main around it.
	"kindconfig": {family: "kind", pkg: "."},

	"kwok": {family: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok"},
	"kine": {family: "kine", pkg: "github.com/k3s-io/kine", cgo: true},
}
