//go:build tools

// Package tools pins kubeadm, apart from the programs that it starts: it needs
// modules which those do not, and so they are not built anew for its sake.
package tools

import _ "k8s.io/kubernetes/cmd/kubeadm/app"
