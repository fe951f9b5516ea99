// Package raftstore is one member of the cluster: a replicated log, the state machine (package mvcc) that the log is applied to, and
// the files of both. It knows nothing about keys. The cores it drives are pure (raft, mvcc, membership); this package is the shell
// with the clock, the disk and the goroutines.
//
// # The way of a write
//
//	Propose   frame the request, register a waiter under its ID, put it into the proposal queue        (the caller's goroutine)
//	node      take all that waits as one batch, step raft once
//	log       1 append the entries, fsync once; tell raft
//	node      raft finds them committed
//	apply     2 State.Apply each, 3 publish one View, 4 Config.OnApply(view, events), 5 answer the waiters, tell raft
//	checkpoint (later) State -> bbolt
//
// node, log and apply are parts, each with a mutex over its state, and who runs a part holds it. One method, node.flush, decides who:
//
//   - With one voter the node goroutine runs all three, in place: a turn goes from the proposals to their answers, and while the disk
//     works the next batch gathers in the queue. A call costs two wakes, that of the node goroutine and its own.
//   - With several voters raft has others to talk to while the disk works. Then flush posts what is to be written or applied to the
//     inboxes of the log and apply goroutines. While one batch is written, one more may wait behind it. No turn waits for a disk then,
//     so it is had by whoever brings what raft waits for, if it is free (node.kick): the goroutine that has read a message, log
//     and apply when they are done, and the ticker. Callers have none: a panic in it has to end the process, whoever they are.
//     Nor does such a turn last while ever more comes (lentRoundsMax): those goroutines have work of their own.
//
// A message is handled in place only if none before it is still posted. So a voter more or less needs no handshake, and neither does
// a full disk: the turn does not wait for room, it posts the message to the log goroutine, which does. Either way the batch grows with
// the load: with 64 calls in flight and one voter there is about one fsync per 64 entries. With several voters, where a batch costs more, it
// waits a little for company under load (pace.go).
//
// # Goroutines
//
//	name        runs                             receives                            bound, and what happens at it
//	node        the node's turns that are not    proposals, answers of log and       proposalsQueuedMax: Propose answers ErrTooManyRequests.
//	            taken by others; with one voter  apply, ticks, messages of others,   entries-, appendsInFlightMax, bounds.inFlight: proposals wait.
//	            log and apply in place           reads that want a read index        inboundMessagesMax, bounds.inbound: appends and proposals
//	                                                                                 of others wait, the rest is dropped
//	log         appends that are posted, waits   appends, marks of checkpoints       what node lets in; on a full disk it serves marks only
//	            for room, marks in the WAL
//	apply       entries that are posted, slices  committed entries, captures for     bounds.committed: raft hands out no more;
//	            of compaction, captures          the checkpoint                      applyLagMax: Propose answers ErrTooManyRequests
//	checkpoint  backend.DB (bbolt)               calls, the policy's poke,           one at a time: callers wait
//	                                             installs
//	defragment  nothing: its steps run on         -                                   one at a time: callers wait for the same
//	            checkpoint, between others
//	publish     nothing; with several voters,    -                                   one proposal at a time; again each publishRetryInterval
//	            until its name is known to all
//	ticker      time: raft's clock (raftclock.   ticks                               leaseRevokeBatchMax per look; the rest at the next
//	            go), timeouts of calls, leases,
//	            policies
//
// The node owns raft.RawNode and its flow control, the log wal.WAL and the hard state on disk, apply mvcc.State and the membership. The
// ticker waits for none of them: calls time out while a disk hangs under a turn. Where this member leads alone raft needs no clock, where
// it follows a leader that is heard of what comes from there carries the clock (raftclock.go), and the ticker is slow.
//
// A Backup has a goroutine that copies, paced and past the page cache (backup.go), until its reader is closed, and the WAL one that keeps a
// spare segment. Everything a goroutine owns that others read is published: the View, the membership, leadership, indexes (atomics in
// Store). Mailboxes never block the sender, and the mutexes are taken in the order node, log or apply; so no two goroutines can wait for
// each other.
//
// # Invariants
//
//	I2  Nothing is answered, or applied, before the fsync it depends on: raft gives out committed entries only once it was told that
//	    they are durable.
//	I3  A checkpoint is the state at exactly one applied index: apply captures it between two batches. It is written in parts (parts.go),
//	    and until the last of them the file is at the index before.
//	I4  View, then events, then answers.
//	I9  The state's rolling hash is in the checkpoint, and the replay continues it.
//	A1  Exactly one of apply, the sweep of timeouts, failure and the caller takes a waiter out of the table, and only the first three
//	    finish it.
//	A2  bbolt is never ahead of the durable WAL, and the WAL holds every entry above the index that bbolt names.
//	A3  Messages of raft's are appended in its order, and applied in its order, whoever does it.
//	A4  No hard state in the WAL stands before the entries that it counts on.
//
// # On disk: DataDir/member
//
//	lock     held while a store is open
//	wal/     segments of package wal; records: see walrecord.go. Config.WALDir may name another directory for them, with a lock of its own
//	snap/db  bbolt in etcd's schema: see package backend
//
// A crash leaves one of these, and Open does this about it:
//
//  1. nothing, or a first segment without entries: the member begins.
//  2. a torn tail of the WAL: it is cut (package wal); nothing in it was acknowledged.
//  3. bbolt at an older index than the last mark in the WAL, or at none: what the WAL gave back after a mark is missing, which no crash
//     does: refused as corruption.
//  4. bbolt at a newer index than the last mark (a crash between its commit and the mark): entries up to its index are skipped.
//     The same for rows that a checkpoint has put ahead, when the crash came before its commit: they are left out, and deleted by the next.
//  5. segments below a mark that were not given back yet: the same.
//  6. snap/db.tmp: removed (package backend).
//  7. snap/db.install*: a snapshot on its way; finished or removed (install.go).
//  8. member.restoring beside member: a restore that did not end; refused (restore.go).
//
// A log that never came to bbolt's index is what no crash leaves either: it is another one, or was put back, and is refused.
//
// The log is read before the rows. A committed compaction in it makes dead, when it is applied again, what the file holds as history; such rows
// are not made versions of (mvcc.Loader.CompactAhead), so a start takes as long as what is alive needs, but for the reading of their bytes.
// Replaying does not look at them: compares see the newest version only, and what a range in a txn answers is nobody's any more. Should the
// compaction be refused, as one of a future revision is, all is loaded once more.
//
// The first reading holds the committed entries while they are few (bounds.committed); of more it keeps the last index, the hard state, where the
// segments begin, compactions and what is not known to be committed, and the entries are applied as the log is read again (catchup.go). By A4 a
// hard state counts on nothing that is replaced behind it.
//
// Entries up to the commit index in the WAL are applied before anything starts. Those behind it are raft's business: a sole voter
// campaigns at once, without waiting for an election timeout, and commits them with the first entry of its term. Open returns after that.
// Meanwhile Config.Loading says how far it has come, and an event each second.
//
// # Space
//
// The quota counts live keys and leases (package compact). quota.go refuses what would grow them beyond it, and raises and lowers the NOSPACE
// alarm of this member; under an alarm the state machine refuses what grows, so members with different quotas decide alike.
//
// The WAL keeps one spare segment. While it cannot get one, commands that need space are refused with mvcc.ErrNoSpace, without an alarm: all
// puts but those that shrink, and new leases. The others use what is left. When that is used up too, the log goroutine waits for room,
// serving nothing but the marks of checkpoints, and everything is refused. Each tick tries again, and while segments lie behind the current
// one a checkpoint is due, whatever else the policy says. The segments that a mark gives back go before its note, as they may be the only
// room for it.
// A checkpoint that finds no room in bbolt changes nothing; the log keeps what it lacks. Rows that a compaction has made dead leave
// bbolt in parts behind a checkpoint (deadrows.go), each as large as the disk takes in two milliseconds, with pauses; one that finds no
// room is tried again.
//
// A log on a disk of its own (Config.WALDir) is moved there, and back, by moving its files while the member is stopped (dirs.go). Open refuses
// a log in the data dir that it is told to look past, two logs, and a database without one.
//
// A failed fsync is another matter: nobody knows what is on disk then. The store stops acknowledging, closes Failed, and has to be
// opened anew; so it does when the last sync of a checkpoint's transaction fails (backend.ErrUnsynced). All else that a checkpoint fails with
// has changed nothing.
//
// # Defragmentation
//
// The database file is written anew while it is in use (defragment.go): in steps on the checkpoint goroutine of a few milliseconds each, with
// pauses by what a step took, so checkpoints wait for one step and the log for what one has to sync. It begins with the removal of dead
// rows, and is due when a call asks for it, or by compact.DefragPolicy. What checkpoints put meanwhile is copied faster than they put it.
//
// # Memory
//
// Values leave memory in slices on the apply goroutine, as compacted versions do (evict.go), until what stays fits into the room that
// compact.Memory gives: superseded versions within Memory.HistoryBytes, and all together within what Memory.Limit leaves beside the heap as
// the last collection has found it (FitMemory). What is in no checkpoint cannot leave: an eviction that has come to that asks for one, with
// the reason "memory". Rows gives readers of what has left; they outlive a file that is replaced, and end with the store. An entry that
// needs a value which cannot be read fails the store: it must neither be refused nor applied.
//
// # Other members
//
// Peers is the way to them (package transport); peerHandler takes what comes in, on goroutines of the transport. A turn sends raft's
// messages before anything is written here; votes and acknowledgements are the log's to send, behind the fsync (I2). Where there is nothing
// to write, as with a commit index that moved, and nothing is being written, the turn answers by itself. What tells others nothing is left
// out (chatter.go). A member that has been cut off is caught up from raftLog, or from a snapshot if what it needs is gone: install.go
// tells the steps, and what a crash leaves. One that cannot take it is left alone for pauses that grow (snapshot_pause.go). A linearizable
// read waits for a read index (readindex.go), but where the only voter leads. A leader whose log goroutine does not get on for an
// election timeout gives the leadership away, and so does one that is stopped (transfer.go).
//
// # Leases
//
// Deadlines are the leader's business and not in the log (leaseClock). What expires is proposed as a revocation that carries the term
// it was decided in, and counts in that term only. Remaining times go to the log for leases that nobody renewed for
// Config.LeaseCheckpointInterval, and for all at a graceful stop, from when on nothing is renewed there any more; they count in their term
// only, too. A renewal of a lease whose remaining time is in the log, or on its way there, has it cleared first. The least time of a lease
// follows from the election timeout, in which members may differ: the one that proposes a lease sees to it.
//
// # Members
//
//	reconfigure.go  AddMember, RemoveMember, UpdateMember, PromoteMember: a configuration change each. The checks before it are package
//	                membership's; whether it is valid is decided again when it is applied, on all members alike. Its caller is answered
//	                by the node, behind the messages that tell raft of it: raft drops a change while one before is not applied.
//	calls.go        what members ask each other: promotion and leases go to the leader, over again for the time of a request
//	removal.go      a member that was removed ends a second later, and its data dir does not open again
//	forcenew.go     --force-new-cluster: changes that are committed by decree, before anything starts
//	join.go         a member of a running cluster takes its identity from the others, its membership from the log or a snapshot
//	restore.go      the data dir of a member of a new cluster is made from a snapshot, of ours or of etcd's; no store is open
//
// # Corruption
//
// Each member keeps the rolling hash at every hashInterval entries and at compactions (hashring.go). The leader compares them each
// hashCheckInterval (a goroutine per comparison, one at a time), and hashes of the rows themselves if it is told to (rows.go). Members outside
// of the majority get the CORRUPT alarm, without a majority member 0 does (corruption.go). Then all members refuse writes, as etcd's do; one that
// is named shows no keys either, and the end of Store.Sound ends the watches on it.
//
// # What takes long
//
// The clock is read once for each entry that is applied: the histogram of applies is made of that, and an entry above Config.SlowApply is an
// event (slow.go), as are a slow fsync and a read index that does not come. Who bounds how many of them are written is who writes them.
//
// With Config.Trace a command may carry a Trace, which says when the fsync and the apply began and ended that it has waited for, and how many
// entries had a part in each (trace.go). The log goroutine then remembers its last fsyncs by the entries that were in them; who applies
// looks for the fsync of an entry whose caller wants to know. Without it the difference is one comparison for each batch. What another
// member does for the command, as the leader of one that a follower has proposed, is not in it.
//
// # Limits
//
// One configuration change at a time; no joint consensus. While a snapshot is on its way the leader keeps no more of its log than
// otherwise, so under load a slow one may be followed by another, as in etcd. While a snapshot is installed this member has its state in
// memory twice. A proposal that was on its way to a leader that ended is answered after Config's request timeout, as in etcd: nobody knows
// whether it will take effect.
package raftstore
