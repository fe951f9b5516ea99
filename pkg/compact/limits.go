package compact

import "time"

// Limits of automatic compaction, as in etcd's v3compactor.
const (
	intervalMax  = time.Hour       // between two periodic compactions at most
	retryDivisor = 10              // notes and attempts in an interval
	revisionTick = 5 * time.Minute // between two looks in revision mode
)

// periodMin is the shortest period taken: a tenth of it is still a wait.
const periodMin = 10 * time.Millisecond

// Defaults of the checkpoint policy. Replaying 64 MiB of WAL takes about a
// tenth of a second; ten minutes let two compactions of an apiserver go by, so
// that most versions of a heartbeat die in memory.
const (
	DefaultCheckpointWALBytes   = 64 << 20
	DefaultCheckpointBurstBytes = 16 << 20
	DefaultCheckpointEntries    = 100_000
	DefaultCheckpointAge        = 10 * time.Minute
	DefaultCheckpointDeadRows   = 2500

	// burstAhead is how far the growth of the log is looked ahead: what would
	// be written within it anyway, before the compaction of an apiserver can
	// make any of it dead, is better written in parts.
	burstAhead = time.Minute

	// A removal takes a twentieth of the time, so that few writes meet one of
	// its parts, unless the disk is so slow that nobody would wait for its end.
	removalPauseFactor = 20
	removalPauseMin    = 30 * time.Millisecond
	removalPauseMax    = 200 * time.Millisecond

	checkpointRetryMin = time.Second
	checkpointRetryMax = time.Minute
)

// Quota, as in etcd's server/storage.
const (
	// DefaultQuotaBytes is the quota when none is given.
	DefaultQuotaBytes = 2 << 30
	// SuggestedQuotaBytesMax is beyond what etcd suggests; more is taken.
	SuggestedQuotaBytesMax = 8 << 30

	// quotaLowPercent of the quota may be in use at most for the alarm to be
	// taken back: so much has to be freed, lest it comes back with the next write.
	quotaLowPercent = 95
	// nearSlackPercent has to be freed below a level of nearPercents for it to
	// be told again.
	nearSlackPercent = 5

	putOverhead  = 256 // bytes charged for a key's metadata
	leaseCharged = 64  // bytes charged for a lease
)

// nearPercents of the quota are told of when they are reached, ascending.
var nearPercents = [...]int{80, 90}

const (
	_ = uint64(periodMin/retryDivisor - 1)
	_ = uint64(removalPauseMax - removalPauseMin)
	_ = uint64(checkpointRetryMax - checkpointRetryMin)
	_ = uint64(SuggestedQuotaBytesMax - DefaultQuotaBytes)
)
