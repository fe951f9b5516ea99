package mvcc

const (
	// leaseTTLMax is the longest lease, in seconds (etcd: lease.MaxLeaseTTL).
	leaseTTLMax = 9_000_000_000

	// leaseTTLMinDefault is the shortest lease, in seconds: the ceiling of
	// one and a half default election timeouts, as in etcd.
	leaseTTLMinDefault = 2

	// rowOverhead is what bbolt keeps for a row beside its key and value (one
	// leaf page element), in bytes.
	rowOverhead = 16

	// growthUnit is what values are counted in when it is decided whether an
	// update grows the store, in bytes. A key can grow by one less of them
	// without being refused.
	growthUnit = 64

	// leaseRowSize is what a lease counts in View.QuotaSize, as in etcd's quota,
	// in bytes.
	leaseRowSize = 64

	// historyChunk is the number of events in one chunk of the history log.
	historyChunk = 1024

	// pendingChunk is the number of versions in one chunk of the list of what
	// the next checkpoint has to write.
	pendingChunk = 1024

	// loadKeysChunk is how many bytes of copies of keys Load allocates at a
	// time.
	loadKeysChunk = 64 << 10

	// loadChunk is the number of versions that Load makes room for at a time.
	loadChunk = 1024

	// evictValueMin is the length of a value, in bytes, from which on evicting it
	// frees more than its stub takes.
	evictValueMin = 64

	// compactStepDefault is the number of units of work of one CompactStep or
	// EvictStep whose caller does not say.
	compactStepDefault = 1000

	// pageKeysFirst is the number of keys in the first page of View.Pages
	// (etcd's RangeStream starts with as many).
	pageKeysFirst = 10

	// fieldDecisionTerm is the field of InternalRaftRequest that carries the
	// term that the expiry or the checkpoint of a lease was decided in. etcd
	// does not know it and skips it.
	fieldDecisionTerm = 20000
)

// NeverCompacted is the compacted revision of a store that never was, as etcd
// reports it. (0 is something else: etcd lets a client compact at 0 once.)
const NeverCompacted Revision = -1

// What HashKV tells the disk to read at a time.
const (
	hashAheadRows  = 1024
	hashAheadBytes = 4 << 20
)

const (
	// LoadBatchRows is the number of rows whose keys Load looks up at a time, and
	// LoadBatchBytes of what size their values together may be before it does not
	// wait for more.
	LoadBatchRows  = 32
	LoadBatchBytes = 256 << 10
)
