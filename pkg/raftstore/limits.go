package raftstore

import (
	"math"
	"time"
)

const (
	tickIntervalDefault           = 100 * time.Millisecond
	electionTicksDefault          = 10
	electionTicksMin              = 2
	requestBytesMaxDefault        = 3 << 19 // 1.5 MiB, as etcd
	snapshotCatchupEntriesDefault = 5_000
	requestTimeoutBase            = 5 * time.Second

	// proposalsQueuedMax bounds the queue in front of the node goroutine; beyond it callers get ErrTooManyRequests.
	proposalsQueuedMax = 8192
	// batchEntriesMax and bounds.batch bound one step of the raft node.
	batchEntriesMax = 1024
	// applyLagMax is etcd's maxGapBetweenApplyAndCommitIndex.
	applyLagMax     = 5000
	messageBytesMax = 1 << 20
	// mailboxKeepMax is the largest slice a mailbox keeps for reuse.
	mailboxKeepMax = 4096
	// appendsInFlightMax is the number of batches the log goroutine may have. While it writes one, one more waits, and what
	// comes in meanwhile gathers in the proposal queue: so there is one batch per fsync, not one per proposal.
	appendsInFlightMax = 2
	// lentRoundsMax is how often a turn on a goroutine with other things to do looks for more; what is usual is below ten.
	lentRoundsMax = 32
	// batchPause is how long a batch waits behind the one before for company, with several voters, while batches have pausedBatchMin entries
	// and more.
	batchPause     = 4 * time.Millisecond
	pausedBatchMin = 8
	// entriesInFlightMax and bounds.inFlight bound the entries proposed and not yet applied.
	entriesInFlightMax = 8192
	inflightMsgsMax    = 256

	// inboundMessagesMax and bounds.inbound bound what came from other members and was not stepped: proposals, and all else.
	inboundMessagesMax = 4096

	// snapshotPauseMin is how long a member is left alone that could not take its snapshot; it doubles with each failure up to
	// snapshotPauseMax, which is also how long one may lag for whose disk has room again.
	snapshotPauseMin = 500 * time.Millisecond
	snapshotPauseMax = 30 * time.Second

	// slowApplyDefault and slowFsync are etcd's --warning-apply-duration and warnSyncDuration.
	slowApplyDefault = 100 * time.Millisecond
	slowFsync        = time.Second

	// reservePauseFactor times as long as an attempt took that found the disk full, at most reservePauseMax, the log looks for no room for a
	// segment; behind one that took less than reserveCheap it looks again with the next tick.
	reserveCheap       = 2 * time.Millisecond
	reservePauseFactor = 30
	reservePauseMax    = 15 * time.Second

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
	// catchUpMax is how long it does so before checkpoints and all others have a turn.
	catchUpMax = 50 * time.Millisecond
	// evictStepBudget is the number of versions that one slice of an eviction looks at.
	evictStepBudget = 512

	// leaseTTLFloor is the shortest lease that the state machine knows, in seconds; the same on all members. See leaseTTLMin.
	leaseTTLFloor                  = 1
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

	// replayedMax is how many bytes of entries a start applies before it lets go of them, and of what a compaction among them has made dead.
	replayedMax = 1 << 20

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

// bounds are those of the bytes of entries in memory, each with one entry more: a request is never larger than what lets it pass.
type bounds struct {
	inFlight  int // proposed and not yet applied
	batch     int // in one step of the raft node
	committed int // handed to the apply goroutine and not yet applied
	perMember int // on the way from the leader to one member, which has to write them
	inbound   int // came from other members and not stepped: proposals, and all else
	catchup   int // applied, for members that lag
}

// boundsOf are shares of a memory limit, 0 for none. A member that lags by more than what stays for it gets a snapshot.
func boundsOf(limit int64) bounds {
	const shareLarge, shareSmall = 8, 32
	if limit == 0 {
		limit = math.MaxInt64
	}
	share := func(most, share int64) int { return int(min(most, max(messageBytesMax, limit/share))) }
	return bounds{
		inFlight:  share(256<<20, shareLarge),
		batch:     share(8<<20, shareSmall),
		committed: share(64<<20, shareSmall),
		perMember: share(64<<20, shareSmall),
		inbound:   share(64<<20, shareSmall),
		catchup:   share(64<<20, shareLarge),
	}
}
