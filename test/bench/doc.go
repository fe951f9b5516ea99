// Command bench measures shim beside the servers one would otherwise run, and
// beside a floor, in one run on one machine with one client.
//
// The floor (floor.go) is a grpc-go server that decodes requests and answers
// with canned, pre-encoded bytes: nothing built on grpc-go can be faster. Each
// server is started on a fresh data dir with its default flags, driven over
// raw gRPC stubs in the shapes that kube-apiservers send, and ended by its
// process ID.
//
// Data flow: main.go parses flags and walks servers x rows; server.go starts a
// server and reads its CPU, memory and disk writes from /proc; load.go drives
// closed-loop workers; rows_*.go are the rows; report.go prints the table,
// with the ratios to etcd and to the floor, and writes the raw figures as JSON.
//
// Goroutines: the workers of the row under way, each ended before the next.
//
// Limits: CPU figures come in clock ticks of 10 ms, so that a row needs enough
// operations; the machine's noise is in every figure, and only ratios from one
// run mean something. Every load is bounded in count or in time.
package main
