// Package conformance compares shim with the real etcd: each script of testdata
// runs against both, and each transcript has to equal the recorded one.
//
//	go test ./test/conformance                 # both servers
//	go test ./test/conformance -server etcd    # only that one
//	go test ./test/conformance -rewrite        # records; runs etcd alone
//
// Beside the recorded scripts, TestRandom has both servers answer the same
// random requests, -seed and -steps say which and how many, and -v shows them;
// TestRandomShapes, TestRandomMessages, TestRandomUsers and TestRandomWatches do so with requests of
// any shape, with damaged messages, and as users with permissions (-shapes);
// TestRestoreIntoEtcd, TestSnapshot... and TestIDs compare what no script can.
//
// The recorded output is what etcd says, never what shim says. The language of
// the scripts is described in package script. The command in storage runs
// upstream's storage suite, which is the other half of make conformance.
//
// Goroutines: the scripts of one server run in parallel, as go test's -parallel
// allows; each owns its server process and its folder.
package conformance
