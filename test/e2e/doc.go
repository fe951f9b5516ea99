// Package e2e runs a real Kubernetes control plane on shim: an unmodified
// kube-apiserver, kube-controller-manager, kube-scheduler and kwok (simulated
// nodes), built from source by test/internal/peers, talking to a shim process
// over mutual TLS.
//
// The tests carry the build tag e2e, because they need minutes and programs
// that take minutes to build: `make e2e` runs them, `go test ./...` does not.
//
// Data flow: pki.go makes the certificates, process.go starts and ends
// programs, cluster.go puts them together and speaks to them (kubectl for
// Kubernetes, clientv3 for the store behind it), watch.go follows `kubectl get
// -w`, and the scenario files assert.
//
// Goroutines: one per started process, which reaps it, and one per followed
// watch, which reads it to its end.
//
// Invariants: everything listens on 127.0.0.1 on ports that were free; every
// process is ended by its own ID when the test ends; nothing is skipped.
//
// Limits: waits have an upper bound (minutes) at which the test fails with the
// logs of the processes; no timing is asserted.
package e2e
