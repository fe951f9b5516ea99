// Command bench measures shim beside the servers one would otherwise run, and
// beside a floor, in one run on one machine with one client.
//
// The floor (floor.go, floor_watch.go) is a grpc-go server that decodes
// requests and answers with canned, pre-encoded bytes: nothing built on grpc-go
// can be faster. Its watches join what waits for a stream into one message, and
// let senders with a message run before a small write, as shim's do. Each server
// is started on a fresh data dir with its default flags, driven over raw gRPC
// stubs in the shapes that kube-apiservers send, and ended by its process ID.
//
// Data flow: main.go parses flags; groups.go lists the measurements: groups of
// rows that share a data set. run.go starts a group's servers and runs each row
// on one after the other, the others stopped by a signal, so that what is
// compared was measured within the same minute. server.go starts and ends them,
// usage.go adds up what the kernel says of their CPU, memory, disk writes, context
// switches and calls; load.go drives closed loops, pace.go open ones at a steady rate.
// The rows: rows_kv.go, rows_flight.go, rows_list.go, rows_watch.go,
// rows_paced.go, rows_upkeep.go, rows_members.go. report.go prints the figures
// and writes them as JSON, aims.go judges them, markdown.go and svg.go make what
// the README shows; with -from they do so without measuring.
//
// Goroutines: the workers and watch streams of the row under way, each ended
// before the next row.
//
// What a figure is: CPU is the server's, from its process clock, in nanoseconds,
// and the sum of all its members. A time without a write is the longest between
// two accepted writes while the leader is ended, of a client that sends 200 a
// second through the others.
// The client decodes of a watch only what it counts (watchclient.go), and lists
// wholly. Where client and server together fill the machine, or the client sent
// late what was due, a note says so: rates and latencies are then those of the
// machine, CPU per operation still is the server's.
//
// Limits: Linux only. The machine's noise is in every figure, and only ratios
// from one run mean something. Every load is bounded, by a count, by time, or by
// both: a slow server does fewer operations.
package main
