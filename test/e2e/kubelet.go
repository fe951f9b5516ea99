//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// There is no kubelet. What it would do, and kubeadm relies on, is done here:
// it runs the static pods (pod.go), it registers its node, it shows its static
// pods in the API as mirror pods, and it has a kubeconfig of its own.

// register makes the Node object.
func (n *node) register(by *node) {
	n.t.Helper()
	by.mustKubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q,"labels":{"kubernetes.io/hostname":%[1]q}}}`, n.host.Name), "create", "-f", "-")
}

// mirror shows a static pod in the API: under the manifest's name and the
// node's, bound to the node, ready, and marked as what cannot be changed there.
func (p *pod) mirror(by *node) {
	t := p.node.t
	t.Helper()
	name := p.manifest.Metadata.Name
	var object map[string]any
	if err := yaml.Unmarshal(p.node.read("etc/kubernetes/manifests/"+name+".yaml"), &object); err != nil {
		t.Fatal(err)
	}
	meta, spec := object["metadata"].(map[string]any), object["spec"].(map[string]any)
	mirror := name + "-" + p.node.host.Name
	meta["name"] = mirror
	annotations := meta["annotations"].(map[string]any)
	annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.source"] = "0", "file"
	spec["nodeName"] = p.node.host.Name
	spec["tolerations"] = []any{map[string]any{"operator": "Exists", "effect": "NoExecute"}}
	delete(object, "status")
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	by.mustKubectl(string(text), "create", "-f", "-")
	by.mustKubectl("", "patch", "pod", mirror, "-n", "kube-system", "--subresource=status", "--type=merge",
		`-p={"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`)
}

// writeKubeletConfig writes what the kubelet's TLS bootstrap leaves: kubeadm
// finds the node's name in it.
func (n *node) writeKubeletConfig() {
	n.t.Helper()
	n.write("etc/kubernetes/kubelet.conf", n.kubeadm("kubeconfig", "user", "--client-name=system:node:"+n.host.Name, "--org=system:nodes",
		"--config=/kubeadm.yaml"))
}
