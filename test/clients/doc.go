// Package clients has the clients that one meets beside apiservers use shim: the
// recipes of etcd's client library, etcdctl's lock and elect, and the access
// patterns of Calico, Cilium, CoreDNS, flannel, Patroni and Vault.
//
//	go test ./test/clients                # patterns on both servers, faults on shim
//	go test ./test/clients -server etcd   # the faults on etcd, to check the tests
//
// # Patterns
//
// A pattern is a conversation that one of those programs has, with the requests
// it sends, through the library it uses. What it is told is written down, without
// what two servers may differ in, and both servers have to tell the same.
//
// # Faults
//
// The recipes run on three members of which one after the other is killed,
// stopped, or gives up its leadership, while sessions are abandoned so that their
// leases expire. What is checked is what a recipe promises: one holder at a time,
// each element once, a sum that stays. A write whose answer was lost may have
// happened or not, so those are counted and the checks allow for exactly them.
//
// # Goroutines
//
// Those of a test. Each process is owned by its cluster, which one goroutine
// disturbs. Waiting is for an event or for a call's answer, bounded by within.
package clients
