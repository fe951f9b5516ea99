// Command soak has a server work as under API servers for some time, while all
// that upkeep is made of goes on beside it, and compares what writes took with
// what they took when nothing else was going on. Everything that clients were
// told is checked against a model.
//
// # Data flow
//
// main.go parses flags; soak.go starts a server on a fresh data dir, fills it and
// goes through the phases of phases.go: quiet ones, each disturbance by itself
// (with a compaction every thirtieth of the length, 20 s in 10 minutes), all of
// them together in rounds, and in the end kill -9 under load. Each phase gives a
// row of latencies and of what the server used (sample.go).
//
//	load.go            heartbeats, pod statuses, events with leases, creates, deletions,
//	                   gets, lists by pages: at a steady rate whatever the answers do; a
//	                   latency counts from when the call was due
//	watch.go           a witness of everything, and the watches of three apiservers, which
//	                   ask for progress
//	disturb.go         compaction, defragmentation, leases that expire, the quota
//	role_lists.go      two dozen whole lists at once, and slow readers of lists
//	role_snapshots.go  snapshots at full speed, and slow readers of them
//	role_watchers.go   watches that nobody reads
//	api.go             the calls; what they were told goes into the ledger
//	ledger             the model: judges all of it when the run is over
//	report.go          figures, what is flat, the README's table
//
// A run fails when the ledger finds a problem, or when memory or disk of the last
// rounds of everything together is more than -flat times that of the first ones.
// Latencies are figures: they are printed and never fail a run.
//
// # Processes and goroutines
//
// The server; this program with the load, whose calls have a goroutine each; and
// for each disturbance that needs much CPU or memory of its own a process of this
// program with -role, which runs only where nobody else wants to (SCHED_IDLE,
// child.go), as those clients would be on other machines. It says what it was told in lines of JSON, and ends with its
// standard input.
//
// # Limits
//
// Linux only. Client and server share the machine: where both have it full,
// latencies are the machine's; each phase says how late the client was. In much
// shorter runs than 10 minutes phases hold too few writes for a p99.
package main
