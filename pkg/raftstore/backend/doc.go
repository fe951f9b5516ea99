// Package backend is etcd 3.7's storage schema in a bbolt file: what raftstore checkpoints its state to and starts from.
//
// The file is a checkpoint, not a write-through. One Write brings it from the state at one applied index to the state at a later
// one in one bbolt transaction, so that it always is the state at exactly one index, which it names. Most of the rows may be put ahead of
// it, in transactions of their own: until then they are no part of the state. etcd's own tools read the file
// (etcdutl snapshot status, restore, hashkv), and etcd starts from what they restore.
//
// # Buckets
//
//	key              8 byte main revision, '_', 8 byte sub revision, and 't' for a tombstone -> mvccpb.KeyValue
//	meta             consistent_index, term (8 bytes big endian), confState (JSON), scheduledCompactRev, finishedCompactRev
//	                 (17 byte revisions), storageVersion ("3.7.0")
//	lease            8 byte ID -> leasepb.Lease {1: ID, 2: TTL, 3: remaining TTL}
//	alarm            etcdserverpb.AlarmMember -> nothing
//	cluster          clusterVersion, downgrade (JSON)
//	members          ID as hex text -> JSON
//	members_removed  ID as hex text -> "removed"
//	auth             authEnabled (1 or 0 as a byte), authRevision (8 bytes big endian); not there while nothing has changed
//	authUsers        name -> authpb.User, with the bcrypt hash of the password
//	authRoles        name -> authpb.Role
//	shim             ours; etcd ignores it and keeps it in copies
//
// Bucket shim holds what guards the file against flipped bits, which bbolt itself does not notice:
//
//	facts            8 byte index, 8 byte rolling hash, 8 byte count and 8 byte sum of the rows of all other buckets but
//	                 key, 8 byte main revision above which rows are ahead (only if there are any), 8 byte hash of these
//	g + 8 byte group 8 byte count and 8 byte sum of the rows of key whose main revision / 1024 is the group
//
// A sum is the sum modulo 2^64 of a 64 bit hash of each row, so a write changes it without reading what it does not touch. Load
// reads every row anyway, and compares. If facts names another index than consistent_index, etcd has written to the file since;
// then the sums say nothing and are made anew by the next Write. raftstore
// refuses such a file, since nobody else writes to the one it owns.
//
// # Pages
//
// Pages have 16 KiB and are filled to the last row that fits: rows are appended and never grow. bbolt puts at least two rows on a page and
// writes each run of pages by a call of its own, so that objects of 3 kB would leave a quarter of 4 KiB pages empty. The size stands
// in the file; a file that was made with another one keeps it until it is defragmented.
//
// # Reading past the mapping
//
// A page of the mapping that is not in memory is a fault: a wait that the Go runtime does not know of, for one page of the kernel's at a time.
// So what may be on the disk only is read by its pages, in system calls, beside an open transaction, whose pages nobody writes to
// (pageFinder): single rows of bucket key, all of its leaves in a Load, and what a defragmentation copies. Where more than one row is to be
// read, the leaves are known from the branches alone, and the kernel is told of all of them first (ReadAhead; leaves that lie one behind
// the other in one piece): the disk then has its queue full instead of one place at a time.
//
// Open walks the pages but for the leaves of bucket key, nearly all there are, which Load checks as it reads them. So the file is read once.
//
// # Goroutines
//
// Load hands out the rows in parts, which may be read by a goroutine each; it is best to read as many at a time as there are processors.
// Write, a Defragmentation, Replace and Close belong to one goroutine (the checkpoint goroutine of raftstore); Begin and the
// readers it gives may be used from any, and Rows, which reads single rows: versions that have left the memory of the store. A file that was replaced has a goroutine until its last reader has ended and its room was given
// back, or the DB is closed.
//
// # Defragmentation
//
// The rows are copied into a new file in steps, from pages read past the mapping; between two steps the file may be written to. Those of
// bucket key, nearly all there are, become pages of the new file one behind the other, without bbolt (pageWriter); the others are put by it. A Write
// notes the rows that it changes and that were copied already, and a step of bbolt's copies them again. The last step, after which nothing is
// to be copied, renames the new file and goes on with it as it is open: nothing is read again. The old one is freed in parts, as the file
// system would have all else wait for the whole.
//
// # Dead rows
//
// What a compaction has made dead is deleted in the order of revisions, a bounded part by each Write. The state is the same whether they
// are there or not, as a key's tombstone goes behind its older rows. scheduledCompactRev is ahead of finishedCompactRev until all are gone.
//
// # Snapshots
//
// A snapshot is the whole file, which Tx.Copy reads past the page cache. Status says what is in one, as etcdutl does. Survey looks at all of it, of ours or of etcd 3.5 to 3.7, and
// Restore then makes it the file that members of a new cluster begin with: in one transaction, as Write does, but for a row without a key,
// which etcdutl leaves when it raises the revision. It is deleted, since it can be read in no way; that all up to its revision counts as
// compacted says the same.
//
// # Crash states
//
// A crash while Open makes the file leaves none, maybe with db.tmp, or an empty one with all buckets.
// A crash in Write leaves the state before or the state after: bbolt writes new pages, syncs, and then switches with one meta page. If the sync
// of that page fails, nothing is written any more (ErrUnsynced): bbolt would use pages of the state before again, which may be all that the
// disk has. Open writes the meta pages anew before anything else.
// A crash behind a part (of a checkpoint, or of a removal of dead rows) may leave a file without the list of its free pages, as etcd's
// files have none: of a file of gigabytes it has megabytes, which bbolt would write with each part (Options.FreelistBytes). Open
// then looks at every page to make it anew, and reads the file along (readAlong). Write leaves it out only if others are to follow and
// the disk has room, and Close writes it.
// A crash behind PutAhead leaves the state before and rows ahead of it, which the sums cover, Load leaves out and DropAhead deletes. Only
// such a file is not what etcd's tools take it for, and no snapshot is one.
// A crash in a defragmentation leaves the old file or the new one, which hold the same rows, and maybe db.tmp, which Open removes.
// After Replace or the last step of one has renamed a file, nothing is written to it before its directory was synced.
//
// # Limits
//
// The file is mapped with room for 10 GiB at first; beyond that bbolt maps it anew, which waits for readers.
// A defragmentation needs room on the disk for the rows once more, and readers of the old file keep its room until they end.
package backend
