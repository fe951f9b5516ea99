//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/test/internal/netns"
	"github.com/kubeshim/shim/test/internal/peers"
)

// TestKubeadm brings up what kubeadm writes, with shim in the place of etcd,
// joins two more control-plane nodes and takes one away again.
func TestKubeadm(t *testing.T) {
	buildImage(t)
	dir := t.TempDir()
	if keep := os.Getenv("E2E_DIR"); keep != "" {
		dir = filepath.Join(keep, t.Name())
	}
	net := netns.New(t)
	first := newNode(t, net, dir, "node-1")
	second, third := newNode(t, net, dir, "node-2"), newNode(t, net, dir, "node-3")

	steps := []struct {
		name string
		do   func()
	}{
		{"init writes manifests", first.initManifests},
		{"the pods come up and are healthy", first.startAll},
		{"init uploads what others join by", first.initUploads},
		{"a second member joins", func() { second.join(first) }},
		{"a third member joins", func() { third.join(first) }},
		{"each API server serves what another wrote", func() { serveAlike(first, second, third) }},
		{"the leader dies and comes back", func() { killLeader(first, second, third) }},
		{"reset removes a member", func() { third.reset(first) }},
		{"two members go on", func() { serveAlike(first, second) }},
	}
	for _, s := range steps {
		began := time.Now()
		if !t.Run(s.name, func(sub *testing.T) {
			for _, n := range []*node{first, second, third} {
				defer func(outer testing.TB) { n.t = outer }(n.t)
				n.t = sub
			}
			s.do()
		}) {
			return
		}
		t.Logf("%s: %s", s.name, time.Since(began).Round(time.Second/10))
	}
}

// buildImage makes the files of the image for this machine.
func buildImage(t *testing.T) {
	t.Helper()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-C", root, "cross", "CROSS=", "PLATFORMS=linux/"+runtime.GOARCH).CombinedOutput(); err != nil {
		t.Fatalf("make cross: %v\n%s", err, out)
	}
}

const (
	certificateKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	bootstrapToken = "abcdef.0123456789abcdef"
)

// initConfig is the cluster: all that differs from kubeadm's defaults is the
// image, and what it would ask a network or a container runtime for.
func (n *node) initConfig() string {
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: %s
certificateKey: %s
localAPIEndpoint: {advertiseAddress: %s}
nodeRegistration: {name: %s, criSocket: "unix:///run/containerd/containerd.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.1
controlPlaneEndpoint: "%[3]s:6443"
etcd:
  local: {imageRepository: shim.local, imageTag: dev}
`, bootstrapToken, certificateKey, n.host.IP(), n.host.Name)
}

// initManifests is the part of kubeadm init before the kubelet starts.
func (n *node) initManifests() {
	n.t.Helper()
	n.write("kubeadm.yaml", n.initConfig())
	for _, phase := range [][]string{{"certs", "all"}, {"kubeconfig", "all"}, {"etcd", "local"}, {"control-plane", "all"}} {
		n.kubeadm(append([]string{"init", "phase", "--config=/kubeadm.yaml"}, phase...)...)
	}
	m := parseManifest(n.t, n.read("etc/kubernetes/manifests/etcd.yaml"))
	c := m.Spec.Containers[0]
	if c.Image != "shim.local/etcd:dev" || c.Command[0] != "etcd" {
		n.t.Errorf("the static pod starts %s of %s", c.Command[0], c.Image)
	}
}

// startAll starts what kubeadm wrote.
func (n *node) startAll() {
	n.t.Helper()
	n.start("etcd").awaitHealthy()
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		n.start(name).awaitHealthy()
	}
	if os.Getenv("E2E_STORE") != "" {
		return // it may say what it likes
	}
	warned := regexp.MustCompile(`"level":"(warn|error|fatal)".*`).FindAllString(n.pods["etcd"].logText(), -1)
	slow := regexp.MustCompile(`"msg":"(request stats|apply request took too long|slow fdatasync)"`) // that is the machine
	if warned = slices.DeleteFunc(warned, slow.MatchString); len(warned) > 0 {
		n.t.Errorf("shim complains: %s", strings.Join(warned, "\n"))
	}
}

// initUploads is the part of kubeadm init behind the kubelet's start.
func (n *node) initUploads() {
	n.t.Helper()
	n.kubeadm("init", "phase", "upload-config", "kubeadm", "--config=/kubeadm.yaml")
	n.register(n)
	for _, p := range []string{"etcd", "kube-apiserver"} {
		n.pods[p].mirror(n)
	}
	for _, phase := range [][]string{{"upload-config", "kubelet"}, {"upload-certs", "--upload-certs"}, {"mark-control-plane"}, {"bootstrap-token"}, {"addon", "kube-proxy"}} {
		n.kubeadm(append([]string{"init", "phase", "--config=/kubeadm.yaml"}, phase...)...)
	}
	// The controller-manager signs the cluster's address for the token.
	err := eventually(n.t.Context(), settleLimit, func(context.Context) error {
		out, err := n.kubectl("", "get", "configmap", "cluster-info", "-n", "kube-public", "-o", "json")
		if err == nil && !strings.Contains(out, "jws-kubeconfig-abcdef") {
			err = errors.New("cluster-info is not signed")
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// join is kubeadm join --control-plane, but for its preflight checks and for
// the start of the kubelet.
func (n *node) join(first *node) {
	n.t.Helper()
	n.write("kubeadm.yaml", fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {token: %s, apiServerEndpoint: "%s:6443", unsafeSkipCAVerification: true}
controlPlane:
  localAPIEndpoint: {advertiseAddress: %s}
  certificateKey: %s
nodeRegistration: {name: %s, criSocket: "unix:///run/containerd/containerd.sock"}
`, bootstrapToken, first.host.IP(), n.host.IP(), certificateKey, n.host.Name))
	n.kubeadm("join", "phase", "control-plane-prepare", "all", "--config=/kubeadm.yaml")
	n.register(first)
	n.joinEtcd()
	n.pods["etcd"].mirror(first)
	n.start("kube-apiserver").awaitHealthy()
	n.pods["kube-apiserver"].mirror(first)
	n.kubeadm("join", "phase", "control-plane-join", "mark-control-plane", "--config=/kubeadm.yaml")
}

// joinEtcd adds a member as kubeadm does it: it announces a learner, writes the
// manifest, which a kubelet would see, waits until the member has started,
// promotes it and waits until all are available.
func (n *node) joinEtcd() {
	n.t.Helper()
	args := []string{"join", "phase", "etcd-join", "--config=/kubeadm.yaml", "-v=5"}
	cmd, out := n.kubeadmCommand(args...)
	joined := make(chan error, 1)
	go func() { joined <- startAndWait(n.t.Context(), cmd) }()
	err := eventually(n.t.Context(), phaseLimit, func(context.Context) error {
		if !n.has("etc/kubernetes/manifests/etcd.yaml") {
			return errors.New("no manifest of etcd")
		}
		return nil
	})
	if err == nil {
		n.start("etcd")
	}
	if err := errors.Join(err, <-joined); err != nil {
		n.t.Fatalf("kubeadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, want := range []string{"Announced new etcd member", "The learner was promoted as a voting member"} {
		if !strings.Contains(out.String(), want) {
			n.t.Errorf("kubeadm does not say %q:\n%s", want, out)
		}
	}
	n.pods["etcd"].awaitHealthy()
	if args := n.pods["etcd"].manifest.Spec.Containers[0].Command; !slices.Contains(args, "--initial-cluster-state=existing") {
		n.t.Errorf("the member was started with %q", args)
	}
}

// reset is the phase of kubeadm reset that takes the member away. Its process
// ends by itself.
func (n *node) reset(other *node) {
	n.t.Helper()
	n.write("kubeadm.yaml", string(other.read("kubeadm.yaml")))
	n.writeKubeletConfig()
	out := n.kubeadm("reset", "phase", "remove-etcd-member", "-v=5")
	if strings.Contains(out, "please manually remove this etcd member") || !strings.Contains(out, "Deleted contents of the etcd data directory") {
		n.t.Errorf("kubeadm reset:\n%s", out)
	}
	select {
	case <-n.pods["etcd"].done:
	case <-time.After(readyLimit):
		n.t.Errorf("the removed member goes on:\n%s", n.pods["etcd"].tail())
	}
	if got := len(other.members()); got != 2 {
		n.t.Errorf("%d members are left", got)
	}
	n.pods["kube-apiserver"].kill() // its store is gone, and it would wait for that
}

// member is one of etcdctl's list.
type listedMember struct {
	ID        uint64 `json:"ID"`
	Name      string `json:"name"`
	IsLearner bool   `json:"isLearner"`
}

// members asks the node's own member, with the certificate that kubeadm has
// made for health checks.
func (n *node) members() []listedMember {
	n.t.Helper()
	var list struct {
		Members []listedMember `json:"members"`
	}
	if err := json.Unmarshal(n.etcdctl("member", "list"), &list); err != nil {
		n.t.Fatal(err)
	}
	return list.Members
}

func (n *node) etcdctl(args ...string) []byte {
	n.t.Helper()
	pki := n.path("etc/kubernetes/pki/etcd")
	var out []byte
	err := eventually(n.t.Context(), readyLimit, func(context.Context) (err error) {
		cmd := n.host.Command(peers.Path(n.t, "etcdctl"), append([]string{"--endpoints=https://127.0.0.1:2379", "-w=json", "--cacert=" + pki + "/ca.crt",
			"--cert=" + pki + "/healthcheck-client.crt", "--key=" + pki + "/healthcheck-client.key"}, args...)...)
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// serveAlike writes through each API server, and reads through all.
func serveAlike(nodes ...*node) {
	t := nodes[0].t
	t.Helper()
	if got := len(nodes[0].members()); got != len(nodes) {
		t.Errorf("%d members, want %d", got, len(nodes))
	}
	for _, m := range nodes[0].members() {
		if m.IsLearner || m.Name == "" {
			t.Errorf("member %+v", m)
		}
	}
	for i, n := range nodes {
		name := fmt.Sprintf("from-%s-of-%d", n.host.Name, len(nodes))
		// Its own API server, not the one that all kubeconfigs point at.
		n.mustKubectl("", "--server=https://"+n.host.Addr(6443), "create", "configmap", name, "--from-literal=a=b")
		for _, other := range nodes {
			if _, err := other.kubectl("", "--server=https://"+other.host.Addr(6443), "get", "configmap", name); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
}

// killLeader kills the member that leads with SIGKILL, writes while it is away,
// and starts its container again, as its kubelet would.
func killLeader(nodes ...*node) {
	t := nodes[0].t
	t.Helper()
	leader := nodes[slices.IndexFunc(nodes, (*node).leads)]
	others := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == leader })
	leader.pods["etcd"].kill()
	err := eventually(t.Context(), readyLimit, func(context.Context) error {
		_, err := others[0].kubectl("", "--server=https://"+others[0].host.Addr(6443), "create", "configmap", "without-leader")
		if err != nil && strings.Contains(err.Error(), "already exists") {
			err = nil // an attempt whose answer was lost
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	leader.pods["etcd"].run()
	leader.pods["etcd"].awaitHealthy()
	for _, n := range nodes {
		if n.pods["kube-apiserver"].running() {
			n.pods["kube-apiserver"].awaitHealthy()
		} else {
			t.Errorf("the API server of %s has ended:\n%s", n.host, n.pods["kube-apiserver"].tail())
		}
	}
	leader.mustKubectl("", "--server=https://"+leader.host.Addr(6443), "get", "configmap", "without-leader")
}

// leads tells whether the node's member is the leader.
func (n *node) leads() bool {
	var status []struct {
		Status struct {
			Header struct {
				MemberID uint64 `json:"member_id"`
			} `json:"header"`
			Leader uint64 `json:"leader"`
		} `json:"Status"`
	}
	if err := json.Unmarshal(n.etcdctl("endpoint", "status"), &status); err != nil {
		n.t.Fatal(err)
	}
	return status[0].Status.Leader == status[0].Status.Header.MemberID
}
