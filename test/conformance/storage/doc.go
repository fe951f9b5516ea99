// Command storage runs the storage suite of k8s.io/apiserver, unchanged,
// against shim or another server:
//
//	go run ./test/conformance/storage                 # shim, built now
//	go run ./test/conformance/storage -server etcd    # the real etcd
//	go run ./test/conformance/storage -run TestWatch ./pkg/storage/etcd3
//
// Data flow: the module of k8s.io/apiserver that upstream/go.mod pins is linked
// to .cache/conformance/apiserver, because the go command takes no overlays
// inside the module cache. go test runs the suite's packages there, with
// upstream/testserver laid over the one package through which every test gets
// its server; that one starts a process for each test. The events of go test
// -json are counted and compared with two files beside this one:
//
//   - expected.txt, every top-level test; one that is missing or new fails the
//     run, so that a suite which silently shrinks is noticed. -update writes it.
//   - skips.txt, the tests that may skip, each with its reason; any other skip
//     fails the run, and so does an entry of this list that did not skip.
//
// The last line of the output is the result, and so is the exit code.
//
// Goroutines: one, besides go test's own process, which gets the interrupt of
// the terminal itself.
//
// Limits: runs the packages two at a time; one test is over after 15 minutes.
package main
