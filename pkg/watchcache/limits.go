package watchcache

// Bounds of the package. Each queue that can fill says what happens then.
const (
	// windowEventsDefault and windowBytesDefault bound the event log. The oldest
	// revisions leave it first; a cursor left behind reads View.History.
	windowEventsDefault = 100_000
	windowBytesDefault  = 64 << 20
	// eventOverhead is what an event in the window is charged beside its bytes:
	// the entry, its slots in two rings, and slice headers.
	eventOverhead = 256
	// frameShareBytesMin is the size of an event's versions from which its frame
	// has them as they are; below, they are copied into it.
	frameShareBytesMin = 4096

	// batchRevisionsMax is how many revisions one answer may hold (etcd:
	// watchBatchMaxRevs), batchBytesMax how many bytes of events. A single
	// revision is never split, however large it is.
	batchRevisionsMax = 1000
	batchBytesMax     = 1 << 20
	// scanEventsMax bounds how many events one read looks at, matching or not, and
	// so how long it holds the log's read lock or walks the history.
	scanEventsMax = 1024

	// controlQueueMax is how many created and cancelled answers of one stream may
	// wait. When full, Create and Cancel block: the client is not reading.
	controlQueueMax = 256
	// progressQueueMax is how many progress requests of one stream may wait. When
	// full, the newest takes the place of the last one waiting.
	progressQueueMax = 16

	// prefixSlashesMax is how deep a prefix may be to be found by hash; deeper ones
	// are kept as odd ranges. It bounds the lookups one event costs.
	prefixSlashesMax = 12
)
