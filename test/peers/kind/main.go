// Command kindconfig prints what kind gives to kubeadm on a node, for a cluster
// configuration: kindconfig CONFIG NODE-NAME NODE-ADDRESS ENDPOINT VERSION. The
// file is loaded and checked, the template filled in and the patches applied by
// kind's own code; only what kind would ask its containers for comes from the
// arguments.
package main

import (
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/kind/pkg/cluster/internal/kubeadm"
	"sigs.k8s.io/kind/pkg/internal/apis/config"
	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
	"sigs.k8s.io/kind/pkg/internal/patch"
)

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: kindconfig CONFIG NODE-NAME NODE-ADDRESS ENDPOINT VERSION")
		os.Exit(2)
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	if err != nil {
		fmt.Fprintf(os.Stderr, "kindconfig: %v\n", err)
		os.Exit(1)
	}
	fmt.Print(text)
}

func render(file, node, address, endpoint, version string) (string, error) {
	c, err := encoding.Load(file)
	if err != nil {
		return "", err
	}
	config.SetDefaultsCluster(c)
	if err := c.Validate(); err != nil {
		return "", err
	}
	text, err := kubeadm.Config(kubeadm.ConfigData{
		NodeProvider: "docker", ClusterName: c.Name, ControlPlaneEndpoint: endpoint, APIBindPort: 6443,
		APIServerAddress: c.Networking.APIServerAddress, Token: kubeadm.Token, PodSubnet: c.Networking.PodSubnet,
		KubeProxyMode: string(c.Networking.KubeProxyMode), ServiceSubnet: c.Networking.ServiceSubnet, ControlPlane: true,
		IPFamily: c.Networking.IPFamily, FeatureGates: c.FeatureGates, RuntimeConfig: c.RuntimeConfig,
		KubernetesVersion: version, NodeName: node, NodeAddress: address,
	})
	if err != nil {
		return "", err
	}
	if text, err = patch.KubeYAML(text, c.KubeadmConfigPatches, c.KubeadmConfigPatchesJSON6902); err != nil {
		return "", err
	}
	for _, n := range c.Nodes[:1] { // the node is the first one, as in kubeadm init
		if text, err = patch.KubeYAML(text, n.KubeadmConfigPatches, n.KubeadmConfigPatchesJSON6902); err != nil {
			return "", err
		}
	}
	return strings.ReplaceAll(text, "metadata:\n  name: config\n", ""), nil
}
