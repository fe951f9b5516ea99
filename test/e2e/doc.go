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
// There are two stories. One is of one apiserver on one member, told with two
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
