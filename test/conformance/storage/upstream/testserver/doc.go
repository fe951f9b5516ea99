// Package testserver takes the place of the package of the same name in
// k8s.io/apiserver/pkg/storage/etcd3 while upstream's storage suite runs: its
// test_server.go is laid over upstream's by go test -overlay.
//
// Where upstream's starts an etcd inside the test, this one starts the server
// named by SHIM_CONFORMANCE_SERVER as a process of its own, one for each test,
// with etcd's flags, on a free loopback port and a temporary data directory.
// The server is ready when it writes etcd's "ready to serve client requests"
// to standard error, and is ended with SIGTERM by its process id when its test
// is over. A server that dies early, or does not stop, fails the test.
//
// Goroutines: one per server, which owns its standard error and its Wait.
package testserver
