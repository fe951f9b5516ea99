package raftstore

import "time"

const (
	tickIntervalDefault           = 100 * time.Millisecond
	electionTicksDefault          = 10
	electionTicksMin              = 2
	requestBytesMaxDefault        = 3 << 19 // 1.5 MiB, as etcd
	snapshotCatchupEntriesDefault = 5_000
	requestTimeoutBase            = 5 * time.Second

	// proposalsQueuedMax bounds the queue in front of the node goroutine; beyond it callers get ErrTooManyRequests.
	proposalsQueuedMax = 8192
	// batchEntriesMax and batchBytesMax bound one step of the raft node.
	batchEntriesMax = 1024
	batchBytesMax   = 8 << 20
	// applyLagMax is etcd's maxGapBetweenApplyAndCommitIndex.
	applyLagMax = 5000
	// committedBytesMax bounds the entries handed to the apply goroutine and not yet applied.
	committedBytesMax = 64 << 20
	messageBytesMax   = 1 << 20
	// mailboxKeepMax is the largest slice a mailbox keeps for reuse.
	mailboxKeepMax = 4096
	// appendsInFlightMax is the number of batches the log goroutine may have. While it writes one, one more waits, and what
	// comes in meanwhile gathers in the proposal queue: so there is one batch per fsync, not one per proposal.
	appendsInFlightMax = 2
	// batchPause is how long a batch waits behind the one before for company, with several voters, while batches have pausedBatchMin entries
	// and more.
	batchPause     = 4 * time.Millisecond
	pausedBatchMin = 8
	// entriesInFlightMax and bytesInFlightMax bound the entries proposed and not yet applied.
	entriesInFlightMax = 8192
	bytesInFlightMax   = 256 << 20
	inflightMsgsMax    = 256
	// inflightMsgBytesMax bounds what the leader has on its way to one member, and so what that one has to write.
	inflightMsgBytesMax = 64 << 20

	// inboundMessagesMax and inboundBytesMax bound what came from other members and was not stepped: proposals, and all else.
	inboundMessagesMax = 4096
	inboundBytesMax    = 64 << 20

	// snapshotPauseMin is how long a member is left alone that could not take its snapshot; it doubles with each failure up to
	// snapshotPauseMax, which is also how long one may lag for whose disk has room again.
	snapshotPauseMin = 500 * time.Millisecond
	snapshotPauseMax = 30 * time.Second

	// catchupBytesMax bounds the applied entries that stay in memory for members that lag.
	catchupBytesMax = 64 << 20

	// slowApplyDefault and slowFsync are etcd's --warning-apply-duration and warnSyncDuration.
	slowApplyDefault = 100 * time.Millisecond
	slowFsync        = time.Second

	// readRetryInterval is etcd's: how often a read index is asked for again.
	readRetryInterval = 500 * time.Millisecond

	// nodeCallsMax bounds what waits to ask the raft state machine something; beyond it callers get ErrTooManyRequests.
	nodeCallsMax = 256
	// callRetryInterval is the pause before the leader is asked again for what it did not answer, as in etcd.
	callRetryInterval = 50 * time.Millisecond
	// healthInterval is how long a connection has to be there for the other member to count as healthy; etcd's HealthInterval.
	healthInterval = 5 * time.Second

	// removedDelay is how long a member that was removed goes on, as in etcd.
	removedDelay = time.Second

	// hashInterval is the number of entries between two points of the rolling hash that members compare, beside those at compactions, and
	// hashRingMax how many are kept: a member may be that far behind and still be compared with.
	hashInterval      = 1000
	hashRingMax       = 64
	hashCheckInterval = 5 * time.Second

	// compactStepBudget is the number of versions one slice of physical compaction looks at.
	compactStepBudget = 512

	// removalAwaitMax is how long a defragmentation waits for dead rows to be removed.
	removalAwaitMax = 30 * time.Second
	// catchUpFactor is how much faster the copy of a defragmentation is than checkpoints at least.
	catchUpFactor = 2
	// evictStepBudget is the number of versions that one slice of an eviction looks at.
	evictStepBudget = 512

	leaseCheckInterval             = 500 * time.Millisecond
	leaseRevokeRate                = 1000 // per second
	leaseRevokeBatchMax            = int(leaseRevokeRate * leaseCheckInterval / time.Second)
	leaseRevokeRetryInterval       = 3 * time.Second
	leaseCheckpointIntervalDefault = time.Minute
	leaseCheckpointBatchMax        = 1000

	// noLeaderTimeouts is the number of election timeouts without a leader after which streams that asked for one end.
	noLeaderTimeouts = 3

	// bootstrapTimeout is etcd's: how long the others of a new cluster have to say whether they know this member already.
	bootstrapTimeout = time.Second

	// publishRetryInterval is the pause before a member tells its name again.
	publishRetryInterval = time.Second

	// versionInterval is etcd's monitorVersionInterval.
	versionInterval = 4 * time.Second

	housekeepingInterval = time.Second

	// quietBytesMax is how much the log of a member that leads alone may grow between two ticks for them to be slow.
	quietBytesMax = 1 << 20

	// backupRate is how fast a backup reads the database, in bytes per second, and backupStallMax how long its reader may pause.
	backupRate     = 64 << 20
	backupStallMax = time.Minute

	// loadingInterval is the time between two events that tell how far a start has come, and loadingCounted what is counted at once.
	loadingInterval = time.Second
	loadingCounted  = 1024

	// growthInterval is the least over which the growth of the log is measured.
	growthInterval = 500 * time.Millisecond
)

// entryOverhead is about what raftpb adds to the data of an entry.
const entryOverhead = 24

// walEntryOverhead is at least what an entry takes in the WAL beside its data, walBatchReserve what stays free for a hard state.
const (
	walEntryOverhead = 64
	walBatchReserve  = 512
)

const (
	// frameOverheadMax is at least what framing adds to a request.
	frameOverheadMax = 32
	// requestHeaderBytes is what framing spares where nobody is named: the tag and the length of the header in which etcd's entries have their ID.
	requestHeaderBytes = 3
	// payloadPooledMax is the largest payload whose buffer is kept for the next one.
	payloadPooledMax = 64 << 10
)
