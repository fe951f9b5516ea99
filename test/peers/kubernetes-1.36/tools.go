//go:build tools

// Package tools pins the Kubernetes programs of the minor version before, whose
// apiserver lists with Range and not with RangeStream.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
