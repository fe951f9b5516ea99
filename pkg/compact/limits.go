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

// Defaults of the checkpoint policy. Replaying 64 MiB of records takes about
// a tenth of a second, or a quarter if they are renewals. An apiserver compacts
// each five minutes what is older than five: a checkpoint writes the versions of
// five minutes at least, so its share of them becomes smaller the longer it waits.
const (
	DefaultCheckpointWALBytes     = 64 << 20
	DefaultCheckpointPatientBytes = 896 << 20
	DefaultCheckpointBurstBytes   = 16 << 20
	DefaultCheckpointEntries      = 500_000
	DefaultCheckpointAge          = 30 * time.Minute
	DefaultCheckpointPartBytes    = 1 << 20
	DefaultCheckpointDeadRows     = 2500

	// walShare of the memory limit is what WALBytes may be at most, and patientShare
	// what PatientBytes, unless WALBytes are more: of a small limit a quarter is not
	// much of a log, and what it holds are values, which may take seven tenths.
	walShare     = 4
	patientShare = 8

	// DefaultCheckpointPatientEntries are replayed in about three seconds. Half of
	// them, from which on a checkpoint comes behind a compaction, are 19 minutes of
	// 5,000 nodes.
	DefaultCheckpointPatientEntries = 1_200_000

	// burstAhead is how far the growth of the log is looked ahead: what would
	// be written within it anyway, before the compaction of an apiserver can
	// make any of it dead, is better written in parts.
	burstAhead = time.Minute

	// patientAhead is two compactions of an apiserver: of a log that is full
	// before, nothing dies by waiting.
	patientAhead = 10 * time.Minute

	// A compaction is over when it settles; a checkpoint that comes while it is
	// fresh has nearly nothing to write that died since.
	compactionSettles = 2 * time.Second
	compactionFresh   = time.Minute

	// A checkpoint takes a tenth of the time, or a third if somebody waits for it,
	// and puts rows twice as fast as the log grows.
	partPauseFactor        = 9
	partPauseFactorAwaited = 2
	partPauseMax           = 200 * time.Millisecond
	partCatchUp            = 2
	partHurried            = 4

	// A removal takes a third of the time while somebody waits for it, or as much of
	// it as it needs to be over in half the time between two compactions; otherwise a
	// twentieth, so that few writes meet one of its parts, unless the disk is so slow
	// that nobody would wait for its end.
	removalPauseFactor        = 20
	removalPauseFactorAwaited = 2
	removalPauseMin           = 30 * time.Millisecond
	removalPauseMax           = 200 * time.Millisecond
	removalTime               = 150 * time.Second

	// RemovalStepBytes is what the first part of a removal reads and writes.
	RemovalStepBytes    = 512 << 10
	removalStepBytesMin = 128 << 10
	removalStepBytesMax = 4 << 20
	removalStepTime     = 2 * time.Millisecond

	checkpointRetryMin = time.Second
	checkpointRetryMax = time.Minute
)

// Defaults of the defragmentation policy. An apiserver compacts every five
// minutes; what is free through that and two checkpoints is not needed.
const (
	DefaultDefragFreeBytes = 64 << 20
	DefaultDefragWindow    = 5 * time.Minute
	DefaultDefragInterval  = time.Hour

	defragCheckpoints  = 2
	defragGainDivisor  = 2                // of what is in use has to be free
	defragReserveBytes = 64 << 20         // stay free beside the copy: a segment of the log
	defragTurn         = 10 * time.Minute // of a member
	defragRetryMin     = time.Minute
	defragRetryMax     = time.Hour

	// CopyStepBytes is the first step of a copy.
	CopyStepBytes    = 256 << 10
	copyStepBytesMin = 64 << 10
	copyStepBytesMax = 1 << 20
	copyStepTime     = 4 * time.Millisecond

	// A copy takes a tenth of the time, or a third if somebody waits for it.
	copyPauseFactor        = 9
	copyPauseFactorAwaited = 2
	copyPauseMax           = 200 * time.Millisecond
)

// Memory.
const (
	// MemoryLimitMin is the smallest limit taken: less would not hold the program.
	MemoryLimitMin = 32 << 20

	historyShare   = 8  // of the limit: its default budget
	valuesShareMin = 16 // of the limit: what values get however much the rest takes
	lowWaterShare  = 16

	// The log of newest events may take as much of the limit.
	windowShare    = 16
	windowBytesMax = 64 << 20

	// A batch of a watcher may take as much of the limit.
	watchBatchShare    = 128
	watchBatchBytesMax = 1 << 20

	// Answers under way may hold as much of the limit.
	listShare          = 8
	listBytesUnlimited = 256 << 20

	// rowHeapBytes is about what a version takes whose value is not in memory: 80
	// bytes, its key and 22 in a stub, and its places in the index and in history.
	rowHeapBytes = 320

	// heapPercent of the limit, less what the runtime takes, may be alive. The rest
	// is for garbage, which needs room or is collected all the time.
	heapPercent = 70
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
	_ = uint64(RemovalStepBytes - removalStepBytesMin)
	_ = uint64(removalStepBytesMax - RemovalStepBytes)
	_ = uint64(checkpointRetryMax - checkpointRetryMin)
	_ = uint64(defragRetryMax - defragRetryMin)
	_ = uint64(CopyStepBytes - copyStepBytesMin)
	_ = uint64(copyStepBytesMax - CopyStepBytes)
	_ = uint64(SuggestedQuotaBytesMax - DefaultQuotaBytes)
)
