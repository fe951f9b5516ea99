// Command soak has a server work as under API servers for some time, while all
// that upkeep is made of goes on beside it, and compares what writes took with
// what they took when nothing else was going on. Everything that clients were
// told is checked against a model.
//
// # Data flow
//
// main.go parses flags; soak.go starts a server on a fresh data dir, fills it and
// goes through the phases of phases.go. Each is a window of some seconds: with
// nothing but the load (quiet), with one disturbance and a compaction, or with all
// of them together; between any two kinds of upkeep there is a quiet one. All of it
// comes in rounds, and in the end there is kill -9 under load. Each window gives a
// row of latencies and of what the server used (sample.go).
//
//	load.go            heartbeats, pod statuses, events with leases, creates, deletions,
//	                   gets, lists by pages: at a steady rate whatever the answers do; a
//	                   latency counts from when the call was due
//	watch.go           a witness of everything, and the watches of three apiservers, which
//	                   ask for progress
//	disturb.go         compaction, defragmentation, leases that expire
//	quota.go           the quota reached and cleared, and the same fill without it
//	role_lists.go      two dozen whole lists at once, and slow readers of lists
//	list_wire.go       takes lists in as they are on the wire
//	link.go            the network between such readers and the server
//	role_snapshots.go  snapshots at full speed, and slow readers of them
//	role_watchers.go   watches that nobody reads
//	probe.go           a write and a sync of this program's own, beside the server's data
//	api.go             the calls; what they were told goes into the ledger
//	ledger             the model: judges all of it when the run is over
//	report.go          figures, what is flat, the README's table
//
// A run fails when the ledger finds a problem, or when memory or disk of the last
// rounds of everything together is more than -flat times that of the first ones.
// Latencies are figures: they are printed and never fail a run.
//
// # What is compared with what
//
// The disk of a machine is not the same in two minutes, and one stall of half a
// second is the p99 of forty seconds. So each window is compared with the two quiet
// ones next to it: "ratio" is the p99 of all windows of a kind over that of all
// quiet windows next to them, and each window's own ratio stands beside it. The
// probe's syncs, in the same windows, tell what the disk and the processors do to a
// program that has nothing to do with the server. Where one takes 20 ms or longer
// the disk has stalled: a row has its figures without the writes that this has met,
// and with all of them, and for how long it did, in the quiet windows as well. Upkeep
// that makes the disk stall shows in the difference of these two.
//
// What needs the most of the processors goes on elsewhere, too: right behind its
// window, between the same two quiet ones, a second server on the same machine,
// which has the same data and no load, has the same disturbance. Its clients and
// its work take the processors and the disk from the first server in the same
// way, and nothing of it is that server's doing: what is felt then, two programs on a
// machine do to each other.
//
// # What readers are
//
// Readers of lists and of snapshots stand for other machines. Two dozen whole lists
// are 720 MB; over loopback they would come in a second, at the speed of copies in
// memory, and what writes felt would be two processors that do nothing else. So they
// come over a link of -link Mbit/s (1000): its readers wait, after each 32 kB, until
// so many bytes can have come that were asked for before by any of them, and take in
// little ahead (SO_RCVBUF of 64 kB), so that what has not come waits at the server as
// it would in front of a network, and a storm takes six seconds and not one. All of
// a storm share one link: it is that of the server's machine. Snapshots have another
// one, and each slow reader has its own of 2 MiB a second: all together is more than
// the one link of such a machine would carry. What the link does not model: packets,
// their loss and the time they travel, and interrupts; both ends of a connection
// are still paid for by the same two processors. All lists are asked for at once,
// so all that the server bounds is the same: lists that wait for its budget of bytes
// do so six times as long.
//
// The harder case has a row of its own, "LIST storms at loopback speed": the same
// without a link. -link 0 has none anywhere; much shorter runs need that, or no list
// comes to its end in its window.
//
// # The quota and its fill
//
// The quota is filled with objects of 16 kB, 40 a second (-fill): 0.66 MB/s, as much
// as all the rest writes (0.6), so that a client that leaks doubles the load. That is
// a load like another, quota or not. So the window right behind, between the same two
// quiet ones, has the fill alone: as many creates and then updates of the same size,
// on the same server, which never come near the quota. Its row is no upkeep, and no
// aim is set for it; "of the fill" is the quota's p99 to that of this window, and
// "ratio" is to the quiet ones as everywhere. Windows whose parts differ (filling, at
// the quota, clearing, making room, and what is left behind it) have each part's
// figures in the report, without the stalls of the disk.
//
// A fill three times as heavy as the load: -fill 128 -quota 58720256.
//
// # Processes and goroutines
//
// The server, and another one to be disturbed elsewhere; this program with the load, whose calls have a goroutine each; and
// for each disturbance that needs much CPU or memory of its own a process of this
// program with -role, which runs only where nobody else wants to (SCHED_IDLE,
// child.go), as those clients would be on other machines. It says what it was told in lines of JSON, and ends with its
// standard input.
// That they run there has a price: the kernel may have a worker of the disk, which weighs much, wait
// for some milliseconds behind such light ones, and then everybody's syncs take as
// long. The probe's p99 and the windows elsewhere show it.
//
// # Limits
//
// Linux only. Client and server share the machine: where both have it full,
// latencies are the machine's; each window says how late the client was. In much
// shorter runs than 10 minutes windows hold too few writes for a p99.
package main
