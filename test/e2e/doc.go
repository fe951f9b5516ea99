// Package e2e runs a real Kubernetes control plane on shim: an unmodified
// kube-apiserver, kube-controller-manager, kube-scheduler and kwok (simulated
// nodes), built from source by test/internal/peers, talking to shim
// processes over mutual TLS.
//
// The tests carry the build tag e2e, because they need minutes and programs
// that take minutes to build: `make e2e` runs them, `go test ./...` does not.
//
// Data flow: pki.go makes the certificates, process.go starts and ends
// programs, cluster.go puts them together; store.go speaks to the members of the
// store (clientv3, and etcdctl for what an operator does), apiserver.go to
// Kubernetes (kubectl). watch.go follows `kubectl get -w`, traffic.go writes,
// reads and scales beside the controllers, and the scenario files assert.
//
// kubeadm_test.go is a story of its own, about bringing clusters up: kubeadm
// itself writes certificates, kubeconfigs and static pods, uploads its
// configuration, joins two control-plane nodes (learner, promote) and removes one
// again. A node is a network namespace and a root directory (node.go); a pod is
// its container's command in a root directory with the image's files, for etcd
// those of `make image`, and the manifest's volumes (pod.go), healthy by the
// manifest's probes. There is no kubelet and no container runtime: kubelet.go and
// pod.go do what the test needs of them, which is to run static pods, the Node
// object, mirror pods, /etc/hosts and kubelet.conf. Not done are preflight
// checks, pulling images, cgroups and limits of pods, and starting again what
// ended; of joined nodes only etcd and the API server run.
//
// There are two stories of the other kind. One is of one apiserver on one member, told with two
// minor versions of Kubernetes. The other is of two apiservers on three
// members: the leader is killed and replaced, and then the replacement carries
// the quorum, while a Deployment scales.
//
// Goroutines: one per started process, which reaps it, one per followed watch,
// which reads it to its end, and one per writer, reader and scaler.
//
// Invariants: everything listens on 127.0.0.1 on ports that were free; every
// process is ended by its own ID when the test ends, the store's last; nothing
// is skipped.
//
// Limits: waits have an upper bound (minutes) at which the test fails with the
// logs of the processes; no timing is asserted.
package e2e
