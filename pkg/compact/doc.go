// Package compact decides when: when history is compacted without a client
// asking for it, when a checkpoint is due, when the database file is written anew
// without its free pages, and when a write is refused because the store is full.
//
// # Purpose
//
// Each decision is a pure function of a few numbers, so that it can be read,
// tested and argued about away from the machinery that acts on it. Nothing
// here compacts, writes or refuses anything itself.
//
// # Data flow
//
//	          Env.Revision, Env.Now, Env.After
//	                      v
//	Options --New--> Auto.Run --Env.Compact--> a compaction is proposed
//
//	CheckpointStats --CheckpointPolicy.Decide--> CheckpointDecision{Do, Reason}
//	free pages over time --FreeLow.Look--> DefragStats --DefragPolicy.Decide--> DefragDecision{Do, Reason}
//	MemoryStats --Memory.Room--> mvcc.Room
//	bytes used, Cost(request) --Quota.Admit--> QuotaDecision{OK, Cost, Remaining}
//	bytes used, alarm --QuotaAlarm.Look--> QuotaLook{Raise, Lower, Near}
//
// # Automatic compaction
//
// The rules are etcd's (--auto-compaction-mode, --auto-compaction-retention),
// to the tick:
//
//   - periodic keeps the time span given. With interval = min(period, 1h) and
//     retry = interval/10, the revision is noted every retry; nothing happens
//     until one period has passed since the start; from then on, the revision
//     of one period ago is compacted once interval has passed since the last
//     compaction that succeeded. A failed one is tried again after retry. A
//     revision that was compacted already is left alone.
//   - revision keeps the number of revisions given: every 5 minutes the current
//     revision less that number is compacted, if it is positive and another
//     one than last time.
//
// A retention of 0, which is the default, means off: apiservers compact by
// themselves. While Env.Paused answers true (a member that does not lead),
// revisions are noted and nothing is compacted. Two things that etcd takes are
// refused here: a negative period and one under 10 ms, with which etcd spins.
//
// # Checkpoints
//
// Everything that is in the WAL only must be replayed at the start and be kept
// in memory; on the other hand whatever is superseded and compacted before the
// next checkpoint never has to be written. A checkpoint is due when the WAL
// behind the last one, or the number of its entries, reaches its bound, and at a
// quarter of the first of these when the log grows so fast that waiting would
// leave nothing out: the fsync of a large checkpoint holds up the log's. Where
// half of what would be written is superseded, and compactions come in time, the
// bound of the log is fourteen times as large, but at most an eighth of the memory
// limit, and that of entries more than twice as large. The log's bytes count as they
// were before they were packed: so many a start replays. Behind a compaction, when
// the least is alive, one is due by age, or from half of these bounds on. A failed
// one is followed by a pause that doubles up to a minute. One is due as well when
// versions have to leave memory that no checkpoint holds yet.
//
// A checkpoint is written in parts of 1 MiB of rows, with a pause after each that
// is nine times as long as the part took, or twice if somebody waits for the
// end, and of 4 MiB without one while the log grows more than half as fast.
//
// Rows that a compaction has made dead are deleted in parts behind a checkpoint,
// each as large as the disk takes in 2 ms: writes wait behind the fsync of one, and
// share the processors. The pause after each is twenty times as long as the part
// took, from 30 to 200 ms; less if the removal would not be over in 150 s otherwise,
// and twice as long as the part if somebody waits for the end.
//
// # Defragmentation
//
// A database file is written anew without being asked when 64 MiB of it, and half
// as much as it holds, were not needed for a while. What is free counts by its
// low over five minutes and two checkpoints, as most pages that a compaction
// frees are used by the next checkpoints. There is an hour between two; dead rows
// have to be gone, no snapshot may be on its way, the disk needs room for the
// copy and a segment of the log, and of several members each has ten minutes of
// its own to begin in. The leader is no exception: a copy holds up nothing.
//
// The copy goes in steps that are synced in 4 ms each, as a write that meets one
// waits for that. Between two it pauses nine times as long as the step took, or
// twice if somebody waits for the end.
//
// # Memory
//
// Keys, index and buffers are in memory always. Values get what they leave of
// seven tenths of the limit, as measured after each collection: what is alive less
// the values is what the rest takes, whoever it belongs to. The other three tenths
// are for garbage. History leaves first; it may have what live values do not need,
// and never more than its own budget. Values leave down to a sixteenth below the
// room, so that not every write makes another one leave.
//
// # Quota
//
// What counts are live bytes: the rows of the newest versions of live keys, and
// 64 bytes for each lease. Not the file, as in etcd: its free pages come and go
// with defragmentation. Not history either: what it takes is a matter of
// compaction, and of the budget for it; and when the disk is full, that is told
// and refused by itself (package raftstore). So whoever is at the quota gets
// room by deleting, and by nothing else.
//
// A command that may grow is charged at first what etcd charges: 256 bytes and
// the key and the value for each put, the dearer branch of a txn, 64 bytes for a
// lease. That is too much for most, and only what does not fit is looked at
// closely (mvcc.View.Growth): what does not grow the live keys is let through.
// What grows is refused, and the member raises its NOSPACE alarm if the store is
// nearly full; a single object larger than all of the room is refused alone.
//
// QuotaAlarm looks at what is used on every tick. It raises the alarm when
// commands of other members have gone past this one's quota, and takes it back
// when less than 95 % is used. At 80 and 90 % it says so, once.
//
// # Goroutines
//
// The package starts none. Auto.Run is a loop that belongs to the goroutine
// which calls it and ends with its context. Everything else may be called from
// anywhere.
//
// # Invariants
//
//  1. At most one compaction of an Auto is under way.
//  2. An Auto asks for a revision that was current at some time before, and
//     never for one below what it compacted last.
//  3. Decide never asks for a checkpoint when nothing was applied since the
//     last one.
//  4. Admit answers OK for a cost of 0 whatever the store holds.
//
// # Limits
//
// limits.go. The notes of a periodic Auto are bounded by 10 per hour of its
// period.
package compact
