//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubeshim/shim/test/internal/netns"
	"github.com/kubeshim/shim/test/internal/peers"
)

// TestKind gives kubeadm what kind would give it for the clusters of hack/kind,
// and looks at the static pods that come of it.
func TestKind(t *testing.T) {
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	net := netns.New(t)
	for _, config := range []string{"stacked", "external"} {
		n := newNode(t, net, t.TempDir(), config)
		out, err := exec.Command(peers.Path(t, "kindconfig"), filepath.Join(root, "hack/kind", config+".yaml"), n.host.Name, n.host.IP(), n.host.Addr(6443), "v1.37.0").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", config, err, out)
		}
		n.write("kubeadm.yaml", string(out))
		if config == "external" {
			n.kubeadm("init", "phase", "control-plane", "apiserver", "--config=/kubeadm.yaml")
			command := parseManifest(t, n.read("etc/kubernetes/manifests/kube-apiserver.yaml")).Spec.Containers[0].Command
			for _, want := range []string{"--etcd-servers=https://shim-etcd:2379", "--etcd-cafile=/etc/shim/ca.crt", "--etcd-certfile=/etc/shim/client.crt"} {
				if !slices.Contains(command, want) {
					t.Errorf("the API server's command lacks %s: %s", want, strings.Join(command, " "))
				}
			}
			continue
		}
		n.kubeadm("init", "phase", "etcd", "local", "--config=/kubeadm.yaml")
		c := parseManifest(t, n.read("etc/kubernetes/manifests/etcd.yaml")).Spec.Containers[0]
		if c.Image != "shim.local/etcd:dev" || c.Command[0] != "etcd" {
			t.Errorf("the static pod starts %s of %s", c.Command[0], c.Image)
		}
	}
}
