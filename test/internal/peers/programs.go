package peers

// program says how one peer is built.
type program struct {
	family  string // folder below test/peers
	pkg     string // import path of its main package
	ldflags string // besides strip
	cgo     bool
}

const (
	strip             = "-s -w"
	kubernetesVersion = "v1.37.1"
)

// kubernetesFlags stamps the version that a release build carries. Without
// it the programs call themselves v0.0.0, which version-skew checks refuse.
const kubernetesFlags = "" +
	" -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=37" +
	" -X k8s.io/component-base/version.gitTreeState=clean" +
	" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion +
	" -X k8s.io/client-go/pkg/version.gitMajor=1" +
	" -X k8s.io/client-go/pkg/version.gitMinor=37" +
	" -X k8s.io/client-go/pkg/version.gitTreeState=clean"

var programs = map[string]program{
	"etcd":    {family: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
	"etcdctl": {family: "etcd", pkg: "go.etcd.io/etcd/etcdctl/v3"},
	"etcdutl": {family: "etcd", pkg: "go.etcd.io/etcd/etcdutl/v3"},

	"kube-apiserver":          {family: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflags: kubernetesFlags},
	"kube-controller-manager": {family: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflags: kubernetesFlags},
	"kube-scheduler":          {family: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-scheduler", ldflags: kubernetesFlags},
	"kubectl":                 {family: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kubectl", ldflags: kubernetesFlags},

	"kwok": {family: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok"},
	"kine": {family: "kine", pkg: "github.com/k3s-io/kine", cgo: true},
}
