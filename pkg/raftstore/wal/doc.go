// Package wal is a write-ahead log of opaque records in preallocated, recycled segment files.
//
// # Purpose
//
// A record is durable once the Sync after its Append has returned nil, and Open gives the durable records back, in order
// and unchanged, or says where the log is damaged. A durable append of a small record costs one write call past the page
// cache, one fdatasync, and the sectors that it touches. Of what comes alone only what is new in it is written: it is packed
// against what came before. What the records mean is the caller's business.
//
// # Data flow
//
//	Append --encode all records of the call into one buffer, behind what the tail's page begins with; pack the payloads of few-->
//	       one pwrite of the blocks that they touch, zeros behind the last record, at the tail of the current segment
//	Sync   --one fdatasync of the current segment--> everything appended is durable
//	full   --> the spare segment becomes the current one (rotate), the old one is sealed, a new spare is made
//	Release --> segments wholly before a position: one becomes the spare, the others are removed
//	Open   --> replay, cut a torn tail, go on behind it
//
// A directory holds segments 0000000000000001.wal and so on without a gap, of which the last is the current one, the file
// spare, and for moments spare.tmp. The formats stand in segment.go (header block), record.go (record) and pack.go (packed payload);
// they are described beside the code that reads and writes them. Version 2 has packed records. A log of version 1 is read and
// gone on with: its last segment stays one of version 1, those behind it are of version 2, which older programs refuse.
//
// # Goroutines
//
//   - The appender: who calls Append, AppendV, Sync or Close, one at a time. It owns the current segment, the tail and
//     the chain. It takes dirMu only to rotate.
//   - The reserve goroutine, started last by Open, ended and waited for by Close. It owns nothing: when a rotation has used
//     the spare it is kicked (a channel of one; a second kick is the same kick), takes dirMu and makes the next spare. An
//     append to the second half of a segment waits until it is known whether there is a spare: so SpaceLow turns true while
//     half a segment is left, however fast the appender is. With Options.ReserveInline it does not exist.
//   - Any goroutine: Release, TryReserve (both take dirMu and do I/O), Size, Sealed, GivenBytes and SpaceLow (atomics).
//
// # Invariants
//
//  1. A file with the name of a segment has a whole, durable header block and the durable records of Options.Header behind
//     it: both are synced before the rename. So a bad header is damage.
//  2. All records of a segment are durable before the next segment gets its name. So a bad record in a segment that is not
//     the last one is damage. A segment's header repeats the number and the chain at the end of the one before.
//  3. Record numbers rise by one over the life of a log, and are never used again. A recycled file holds records of its
//     former use behind the tail, and these have smaller numbers than the segment's first one: they can never be taken for
//     the next record, whatever their checksums. The seed makes the checksums fail as well: it is the CRC of the header
//     block, with the number and a random salt in it. The salt also means that nobody who can choose payloads can write
//     one which looks like a record.
//  4. Known zeros: in a segment made of a fresh file all bytes behind the tail are zeros. In a recycled one those from the tail
//     to the end of its page are. For each write is of whole blocks from memory that is aligned (vfs.OpenDirect; a block is
//     a sector of 512 bytes where the disk takes those, else a page): it repeats what the tail's block begins with, byte for byte, and
//     the first write into a page fills it up with zeros. A sector that is written again and has
//     only durable records holds the same before and after, so a crash in between takes nothing from it.
//  5. A record's header names the last record that was durable when it was written, so each one is a witness for those
//     before it.
//  6. There is one spare, or SpaceLow is true, or one is being made.
//  7. The windows of the writer and of a reader hold the same bytes at the same record: the payloads of the segment's packed
//     records, in order. An append that was taken back is taken out of the window too. The chain covers what was given to Append, so
//     that a reader notices if they ever differ.
//  8. After a failed write, fsync or directory sync the log takes nothing more. Only a full disk is forgiven, and then the
//     log is what it was before.
//
// # Torn tail or damage
//
// Only the bytes written since the last fdatasync can be torn: of each of their 512-byte sectors the old contents or the new
// may be on disk. Where the last segment's good records end, tail.go decides: it is damage, and Open gives a *CorruptError,
// if a later record witnesses that the bad one was durable, or if none of its sectors is missing although the bytes below it
// were known zeros. In all other cases it is a torn tail, and cut. One case remains open, and is cut: damage to the records
// synced last, with nothing written behind them, which looks like a sector of zeros or reaches into a page of a recycled
// segment that held no durable record before. The next record appended, or the mark that Close writes, closes it. A mark is
// a record of type 0 without payload, not given to replay.
//
// Where the file system has no way past the page cache, a page that the kernel writes back while a write call copies into it
// could be torn within a sector, if the machine fails just then. Such a tail can be taken for damage; the log errs on the side
// of not starting.
//
// # Write paths, and what a crash leaves of each
//
// Path 1, Append and Sync: (a) pwrite of the records, (b) fdatasync.
//
//	before (b): any subset of the sectors written since the last Sync.
//	   1. Good records are kept as far as they reach, even though nobody was told that they are durable.
//	   2. These, as far as nothing witnesses that they were durable, are written again as they are: after an fsync that
//	      failed in an earlier process the page cache may hold what the disk does not, and only a write makes the next
//	      fsync mean it.
//	   3. The torn rest is overwritten with zeros, up to the end of anything that has a header of this use of the segment,
//	      and in known zeros up to the last byte that is none.
//	   4. fdatasync. Then only is Open done. A crash in 2 to 4 leaves more zeros than before in the part that is cut, and
//	      the next Open cuts at the same place.
//	after (b): all of it.
//	disk full in (a): all of it is overwritten with zeros, and synced, before ErrNoSpace is returned: of a write past the page
//	cache that fails nobody says how far it came.
//
// Path 2, rotate: (a) fdatasync of the current segment, (b) pwrite of header block and the caller's header records into the
// spare, (c) fdatasync of it, (d) rename to its number, (e) fsync of the directory, (f) pwrite of the seal behind the last record
// of the old segment, and fdatasync of it, (g) the append goes on in the new one.
//
//	before (d): the spare holds anything.
//	   1. It is a spare still: its contents count for nothing, and it is treated as recycled.
//	(d) done, before (e): the spare or the segment.
//	   2. If it is the segment, it is whole, without further records: path 1.
//	after (e): the segment, and a seal, none or a torn one in the segment before it.
//	   3. Nothing depends on the seal of a segment that has a successor. A sealed segment without one is damage.
//
// Path 3, reserve: (a) create spare.tmp, (b) preallocate, (c) fdatasync, (d) rename to spare, (e) fsync of the directory.
//
//	before (d): spare.tmp of any size. 1. Open removes it.
//	after (d): spare, spare.tmp or neither. 2. A spare of the wrong size is removed. A missing one is made again.
//	disk full in (a) to (d): spare.tmp is removed, SpaceLow turns true.
//
// Path 4, Release, for each segment from the oldest: (a) rename it to spare, replacing one that was never written, or remove
// it, (b) fsync of the directory.
//
//	before (b): the segment is there or not. 1. Either way the rest has no gap, since segments go one by one.
//
// Path 5, Close: path 1 for what is not synced, then path 1 for the mark.
//
// # Limits
//
// A segment is 16 KiB to 1 GiB (default 64 MiB; 2 to 3 of them are on disk when the caller releases in time). The records of
// one Append take at most half of it; so do those of Options.Header, header block included. Open reads all segments, and the
// rest of the last one, in buffers of 256 KiB (or a record's size). Nothing else is kept in memory but the write buffer, which
// is dropped when it is larger than 8 MiB, and 176 KiB for packing. An append of at most 4 records and 16 KiB is packed. The log cannot tell that segments at its beginning are missing: who has a checkpoint
// knows where the log must begin, and checks it. That the last ones are missing shows in the seal of the one before them, unless
// the machine failed in the moment between (e) and (f) of path 2.
//
// # Decisions
//
// Fallocate, not zeros: a write into an extent that was allocated but never written also writes the file system's journal, a
// recycled segment's does not. Writing 64 MiB of zeros once would avoid that for the first one or two segments in the life of
// a directory, after which all are recycled, and would double what a device writes under large batches until then. Release
// therefore prefers a used segment as the spare over one that was never written.
//
// Measured on ext4 on a virtual NVMe disk (2 cores, other work going on), one record of 400 bytes and one Sync per operation:
//
//	go test -run=- -bench=AppendSync -benchtime=3000x ./pkg/raftstore/wal   with WAL_BENCH_DEVICE=vda
//
//	                     batch of 1                 batch of 16
//	fresh segment        0.10 ms, 5.2 to 7.1 kB     0.17 ms, 15 kB on disk
//	recycled segment     0.10 ms, 4.7 kB            0.11 ms, 11 kB on disk
//
// 4.7 kB was the page of 4,096 bytes, a second one for the tenth of the records that lie across a page boundary, and what the
// rest of the system wrote meanwhile. A plain file that grows takes 0.14 ms and 8.6 kB: each write changes its size, too.
//
// Sectors, where the disk takes them: 1.3 kB for the same record (block-B/op of the benchmark), 4.5 through the page cache, in the same
// time. Of a page that a record begins the whole is written: in a recycled segment that makes the known zeros with which damage is told from
// a torn tail, and in a fresh one the file system would fill the page up anyway. It is a tenth to a third of what is written; without it a
// flipped bit in the last record would mostly be taken for a torn write.
//
// Past the page cache, because a write through it costs more: the copy, the state of each page, and the search for dirty ones in
// fdatasync. Medians of ten runs on the same machine, CPU and wall time of an append with its fdatasync, through the page cache and
// past it (go test -run=- -bench=AppendSync -benchtime=1000x ./pkg/raftstore/wal):
//
//	                                  through               past
//	1 record of 400 bytes, recycled   43 µs, 88 µs          39 µs, 84 µs
//	16 of them, recycled              47 µs, 100 µs         44 µs, 93 µs
//	20 records of 3 kB, recycled      68 µs, 139 µs         55 µs, 128 µs
//	20 records of 3 kB, fresh         114 µs, 244 µs        88 µs, 192 µs
//
// A record each 50 ms costs the same both ways: the processor's and the disk's way out of sleep is most of it. All appends are
// of whole pages, on every file system, so that there is one path to test.
//
// Packed against a window of its own kind, not compressed by itself: a record of 700 bytes alone has little in it twice, but nearly
// all of it stood in the log a moment ago. A window of 64 KiB holds the renewals of a hundred other nodes, which differ in names, UIDs and
// times. One that reaches back to the same node's renewal of 10 seconds before would have 5 MB with 5,000 nodes.
// Appends of many records are not packed: they share their sectors, and come when the processors are busy. The code is LZ with byte-aligned
// sequences, in 250 lines; a library's encoder begins anew with each block, and takes a dictionary that does not move.
//
// One durable watermark per record, not one per log: keeping it in a place of its own would be a second block for each Sync.
// Zeroing recycled segments instead of numbering would write everything twice.
package wal
