// Package mvcc is the state machine of the store: keys with their versions,
// leases, alarms, and what the commands of the log do to them. What it answers
// is what etcd 3.7.3 answers.
//
// # Purpose
//
// A State is what the log means when it is applied from its start. It is pure:
// no clock, disk, network, randomness, goroutine or log line; equal entries
// give equal states on every member, and on every replay. Readers never see a
// State. They get a View, which is the state at one applied index and never
// changes.
//
// # Data flow
//
//	entry --Decode--> Apply --> Result: answer, events
//	                    |
//	                 Publish --> View --> Range, Pages, Txn, Lease..., History, HashKV
//	                    |
//	              CompactStep    (between batches: frees what a Compact made dead)
//	                    |
//	            BeginCheckpoint --> Checkpoint --> rows for bbolt --> Load
//
// One file per verb: apply*.go change the state, view*.go read it, checks.go
// holds the checks of requests that come before the log, frame.go the form of
// an entry, checkpoint.go and load.go the way to a file and back.
//
// # The index and the versions
//
// The index is a copy-on-write tree (package cowtree) that holds the newest
// Version of each key. Older ones hang off it by Version.Prev, newest first. A
// deletion is a Version too, a tombstone; it stays in the tree until compaction
// takes it. A live key weighs 1 and a tombstone 0, so that a count at the
// current revision is the difference of two sums, in O(log n).
//
// A Version keeps the encoded mvccpb.KeyValue and nothing else of the request:
// it is encoded once, into one allocation, and from then on only copied to the
// wire. Its fields are in the order
//
//	key | create | mod | version | value | lease
//
// (absent if zero); for a tombstone, whose event has key and mod, a prefix is what
// etcd's file holds.
//
// # Values that leave memory
//
// What a finished checkpoint holds need not be in memory as well. EvictStep puts
// a stub in the place of an encoding: the key, which row it is, and a hash of what
// has left. Everything else of a version stays, so the index, counts, keys-only
// answers, sizes and the rolling hash never ask for more. The walks that choose
// what leaves, superseded versions before live ones, are in evict.go; how much may
// stay is the caller's to say (Room).
//
// Who needs bytes takes an Encoding of the version: the bytes, which it keeps in
// memory, or the stub, whose row it reads from Options.Rows. A row never changes
// and is named by its revision, so it does not matter which file, or which state of
// it, it is read from. It may be gone, though: compaction removes what is dead, and
// an older View may still show it. Hence:
//
//  1. Rows are frozen before they are read (RowReader), and a row that is there
//     then can be read until the reader is closed.
//  2. A row leaves the file only after the compacted revision that makes it dead
//     was stored where all views look. So if that is not beyond the revision that
//     is read once the rows are frozen, all rows visible at it are there. Otherwise
//     View.Rows answers ErrOvertaken, and the read is done again on a newer View.
//  3. A row whose hash is another one, or that is not there in spite of 2, is a
//     *ReadError. Apply answers that, too, when a compare by value or a put that
//     keeps the value needs such a row: the state is of no use then.
//
// A value comes back only with the next write of its key: apply has no disk to wait
// for, and the kernel's cache has what is read often.
//
// # Reading the past
//
// A read at the revision of the view takes what is in its tree, and follows no
// link. A read at an older revision walks Prev to the first version at or
// before it. Compaction cuts links while such a walk goes on; hence:
//
//  1. Only the link of a version that is at or below the compacted revision C is
//     cut. Whoever reads at C or above stops at that version or before.
//  2. Whoever reads below C is refused: the reader looks at the newest compacted
//     revision, which all views share, before its walk and again after it. The
//     newest C is stored before the first link is cut.
//
// So a read that was not overtaken is right, and one that was is ErrCompacted;
// no lock is taken and no reader holds up a compaction.
//
// # Compaction
//
// Applying a Compact sets the compacted revision and trims the history, no
// more; from then on the reads below are refused. What is dead is then removed
// by CompactStep in slices as large as the caller likes. No key is looked at
// that has nothing dead: each write that supersedes something leaves a note in
// a queue, in the order of revisions, and the queue is worked off up to C.
//
// Dead at C is a version that another one supersedes at or below C, and a
// tombstone below C. A tombstone exactly at C is kept until the next compaction
// (etcd since 3.5.16).
//
// # History
//
// All versions from C on, in the order of revision and sub revision, are in a
// list of chunks that views share. A watcher replays from it; so does HashKV.
//
// # Checkpoints
//
// A Checkpoint is captured in O(1): the list of the versions written since the
// last one (those that died meanwhile were taken out of it), the rows to
// delete, the leases that changed, and a View. Rows are etcd's: 17 or 18 bytes
// of key (RowKey) and the KeyValue. Load links and sorts the rows and removes
// what the compaction it finds had made dead; the next checkpoint then deletes
// these rows. Of the state only what is derived is not in a file: the index,
// the attachments of leases, the history.
//
// # The rolling hash
//
// Every entry is folded into a 64 bit hash, see fold. It is part of a
// checkpoint; equal indexes must have equal hashes.
//
// # Space
//
// While a NOSPACE alarm stands, what grows the live keys is refused, and
// nothing else: View.Growth tells what grows. This is decided where a command
// is applied, from the state alone, as the alarm is in the log and the quota is
// not: members may have different ones. What stays below a unit of 64 bytes
// does not grow, so that heartbeats go on; all of it together is less than a
// unit for each key. A txn that is applied then looks at its keys twice.
//
// # Auth
//
// Who asks stands in the header of a command (AppendInfo). While auth is enabled
// it is checked where the command is applied, against the users and roles there
// (package auth), so that a change of permissions is ordered with the writes on
// every member. As in etcd this comes behind the alarms and before all else: a
// txn is checked in its compares and both branches, prev_kv is a read, a put with
// a lease and a revocation have to be permitted for all keys of the lease. A
// lease that expires asks nobody. With auth disabled that is one comparison.
//
// # Goroutines
//
// The package starts none but in Load, Loader.Readers for the rows, and then
// one that sorts half of the keys. They have ended when Load returns. A State with its Checkpoint calls belongs to one
// goroutine, the one that applies. Views and Versions are read by all. A
// Checkpoint may be written by another goroutine while the State goes on.
//
// # Invariants
//
//  1. One writing entry is one main revision; a refused entry, or one that
//     changes nothing, is none. Revisions are dense.
//  2. The versions of a key descend strictly by (mod, sub) along Prev.
//  3. The tree's item of a key is its newest version; attached holds exactly the
//     live versions with a lease that exists, by lease and key.
//  4. A version visible at or after the compacted revision is never removed.
//  5. A Checkpoint holds every version that is not dead at its index. It may
//     hold some that are, when a removal is under way; CompactFinished tells.
//  6. Load of a checkpoint and the log behind it give the state and the hash
//     that applying all of the log gives.
//
// # Differences from etcd, on purpose
//
//   - A range_end that is present but empty is one that is absent. etcd reads it
//     so in a command that went through its log, but as "all keys from here" in
//     a read.
//   - HashKV at exactly a compacted revision is computed from what is left. etcd
//     gives the hash that it kept from the compaction.
//   - A txn that deletes "from a key on" and puts behind it, which etcd lets
//     pass its checks, works; in etcd it can end in a panic.
//   - An expiry of a lease, or a checkpoint of its remaining time, that was
//     decided in another term is refused (ErrStaleExpiry).
//   - Under a NOSPACE alarm etcd refuses every put, every txn with a put in
//     either branch, and every lease. Here updates that do not grow, txns whose
//     branch does not, and leases go through.
//   - Alarms are listed by type and member, not at random.
//   - Who may not do what NOSPACE stands in the way of is told ErrNoSpace, as in
//     etcd, also where it would not grow: else the answer would tell of the keys.
//
// # Limits
//
// Memory holds every version until it is compacted: about 80 bytes plus the
// encoded key and value each, 8 to 16 more for lists and the tree, and up to
// two short-lived copies of the tree's nodes per published batch. Of a version that
// was evicted 80 bytes, the key and 22 more stay; values below 64 bytes are not
// evicted. A read of the
// past costs one step for each version of a key that is newer. Keys and values
// are below 4 GiB, changes in one revision below 1<<32.
package mvcc
