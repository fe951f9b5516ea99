package compact

import (
	"errors"
	"fmt"
	"time"
)

// CheckpointPolicy says when a checkpoint is due. The zero value is the
// default.
type CheckpointPolicy struct {
	// WALBytes since the last checkpoint, as they were before they were packed,
	// from which on one is due. What is written there cannot leave memory before.
	// More saves writes and makes the start after a crash longer.
	WALBytes int64
	// PatientBytes take the place of WALBytes while most of what a checkpoint
	// would write is superseded, and the log grows so slowly that compactions
	// come before it is reached. More saves writes of heartbeats and makes the
	// start after a crash longer. Default WALBytes if those are set.
	PatientBytes int64
	// BurstBytes since the last checkpoint, from which on one is due if the
	// log grows so fast that it would reach WALBytes within a minute. Less
	// makes checkpoints smaller, so that a write waits less for the disk beside
	// one and a checkpoint needs less memory; more leaves more of them out.
	BurstBytes int64
	// Entries applied since the last checkpoint, from which on one is due
	// (--snapshot-count). More saves writes and makes the start longer.
	Entries uint64
	// PatientEntries take the place of Entries where PatientBytes take that of
	// WALBytes. Default Entries if those are set.
	PatientEntries uint64
	// Age of the last checkpoint, from which on one is due behind the next
	// compaction, when the least is alive, and half of it later in any case, if
	// anything was applied since. More saves writes and keeps WAL segments longer.
	Age time.Duration
	// PartBytes of rows are put by one transaction of a checkpoint, or a row more.
	// More saves writes, some 100 kB for each part; less keeps a write waiting
	// less beside it.
	PartBytes int64
	// DeadRows is how many rows that a compaction has made dead one transaction
	// deletes at most; large ones are fewer (RemovalStep). More saves writes and makes
	// a removal shorter; fewer keep a write waiting less beside it.
	DeadRows int
}

// EnsureDefaults fills in what is zero.
func (p *CheckpointPolicy) EnsureDefaults() {
	if p.PatientBytes == 0 {
		p.PatientBytes = p.WALBytes
		if p.WALBytes == 0 {
			p.PatientBytes = DefaultCheckpointPatientBytes
		}
	}
	if p.WALBytes == 0 {
		p.WALBytes = DefaultCheckpointWALBytes
	}
	if p.BurstBytes == 0 {
		p.BurstBytes = DefaultCheckpointBurstBytes
	}
	if p.PatientEntries == 0 {
		p.PatientEntries = p.Entries
		if p.Entries == 0 {
			p.PatientEntries = DefaultCheckpointPatientEntries
		}
	}
	if p.Entries == 0 {
		p.Entries = DefaultCheckpointEntries
	}
	if p.Age == 0 {
		p.Age = DefaultCheckpointAge
	}
	if p.PartBytes == 0 {
		p.PartBytes = DefaultCheckpointPartBytes
	}
	if p.DeadRows == 0 {
		p.DeadRows = DefaultCheckpointDeadRows
	}
}

// FitMemory bounds what cannot leave memory because no checkpoint holds it,
// WALBytes, BurstBytes and PatientBytes, by shares of the memory limit, in bytes; 0:
// there is no limit.
func (p *CheckpointPolicy) FitMemory(limit int64) {
	p.EnsureDefaults()
	if limit > 0 {
		p.WALBytes = min(p.WALBytes, limit/walShare)
		p.BurstBytes = min(p.BurstBytes, p.WALBytes)
		p.PatientBytes = min(p.PatientBytes, max(p.WALBytes, limit/patientShare))
	}
}

// Validate reports everything that is wrong.
func (p *CheckpointPolicy) Validate() error {
	var errs []error
	if p.WALBytes < 0 {
		errs = append(errs, fmt.Errorf("checkpoint after %d bytes of wal", p.WALBytes))
	}
	if p.PatientBytes < 0 {
		errs = append(errs, fmt.Errorf("patient checkpoint after %d bytes of wal", p.PatientBytes))
	}
	if p.BurstBytes < 0 {
		errs = append(errs, fmt.Errorf("checkpoint after %d bytes of wal in a burst", p.BurstBytes))
	}
	if p.Age < 0 {
		errs = append(errs, fmt.Errorf("checkpoint after %v", p.Age))
	}
	if p.PartBytes < 0 {
		errs = append(errs, fmt.Errorf("checkpoint in parts of %d bytes", p.PartBytes))
	}
	if p.DeadRows < 0 {
		errs = append(errs, fmt.Errorf("removal of %d dead rows at a time", p.DeadRows))
	}
	return errors.Join(errs...)
}

// CheckpointStats is what a decision is made from.
type CheckpointStats struct {
	Entries      uint64        // applied since the last checkpoint
	Rows, Stale  int           // versions it would write; of these, superseded ones and tombstones
	WALBytes     int64         // given to the WAL since then, as they were before they were packed
	WALRate      int64         // bytes a second that the WAL has grown by lately
	Age          time.Duration // since then
	Behind       time.Duration // since the last compaction
	Failures     int           // in a row
	SinceFailure time.Duration // since the last of them
	Crowded      bool          // versions that no checkpoint holds are too many for the memory
	Full         bool          // the disk is full, and a part of the log is left that a checkpoint gives back
}

// CheckpointReason says why a checkpoint is due, or why it is not.
type CheckpointReason string

// The reasons for a checkpoint, by rank, and those against one.
const (
	CheckpointWAL     CheckpointReason = "log size"
	CheckpointBurst   CheckpointReason = "log growth"
	CheckpointEntries CheckpointReason = "log entries"
	CheckpointBehind  CheckpointReason = "behind a compaction"
	CheckpointAge     CheckpointReason = "age"
	CheckpointMemory  CheckpointReason = "memory"
	CheckpointSpace   CheckpointReason = "full disk"
	CheckpointClean   CheckpointReason = "nothing was applied since the last one"
	CheckpointPause   CheckpointReason = "pause after a failure"
	CheckpointNotDue  CheckpointReason = "no bound is reached"
)

// CheckpointDecision is an answer with its reason.
type CheckpointDecision struct {
	Do     bool
	Reason CheckpointReason
}

// String is the decision as a part of a line of a log.
func (d CheckpointDecision) String() string {
	if d.Do {
		return "checkpoint: " + string(d.Reason)
	}
	return "no checkpoint: " + string(d.Reason)
}

// Decide says whether a checkpoint is due. Zero bounds are defaults.
func (p CheckpointPolicy) Decide(s CheckpointStats) CheckpointDecision {
	p.EnsureDefaults()
	patient := p.patient(s)
	bytes, entries := p.WALBytes, p.Entries
	if patient {
		bytes, entries = p.PatientBytes, p.PatientEntries
	}
	behind := s.Behind >= compactionSettles && s.Behind < compactionFresh
	switch {
	case s.Entries == 0:
		return CheckpointDecision{false, CheckpointClean}
	case s.Failures > 0 && s.SinceFailure < checkpointPause(s.Failures):
		return CheckpointDecision{false, CheckpointPause}
	case s.WALBytes >= bytes:
		return CheckpointDecision{true, CheckpointWAL}
	case !patient && s.WALBytes >= p.BurstBytes && s.WALRate*int64(burstAhead/time.Second) >= p.WALBytes-s.WALBytes:
		return CheckpointDecision{true, CheckpointBurst}
	case s.Entries >= entries:
		return CheckpointDecision{true, CheckpointEntries}
	case behind && (s.Age >= p.Age || s.WALBytes >= bytes/2 || s.Entries >= entries/2):
		return CheckpointDecision{true, CheckpointBehind}
	case s.Age >= p.Age+p.Age/2:
		return CheckpointDecision{true, CheckpointAge}
	case s.Crowded:
		return CheckpointDecision{true, CheckpointMemory}
	case s.Full:
		return CheckpointDecision{true, CheckpointSpace}
	}
	return CheckpointDecision{false, CheckpointNotDue}
}

// patient tells whether waiting saves writes: half of what would be written now
// is superseded, and neither now nor since the last checkpoint has the log grown
// so fast that no compaction would come in time.
func (p CheckpointPolicy) patient(s CheckpointStats) bool {
	return 2*s.Stale >= s.Rows &&
		s.WALRate*int64(burstAhead/time.Second) < p.PatientBytes/4 &&
		(s.WALBytes < p.BurstBytes || s.WALBytes*int64(patientAhead/time.Second) <= p.PatientBytes*int64(s.Age/time.Second))
}

// PartStats is what is known after a part of a checkpoint.
type PartStats struct {
	Took    time.Duration // writing the part
	Written int64         // bytes of rows so far
	Grown   int64         // bytes that the log has grown by meanwhile
	Awaited bool          // somebody waits for the end
	Pressed bool          // there is no time to lose: the store is closing, or the disk is full
}

// NextPart answers how many bytes of rows the next part of a checkpoint has, and
// how long to leave disk and processors to the writes before it. Where the log
// grows more than half as fast as rows are put there is no pause, and parts are
// larger: the next checkpoint must not be larger than this one.
func (p CheckpointPolicy) NextPart(s PartStats) (bytes int64, pause time.Duration) {
	p.EnsureDefaults()
	switch {
	case s.Pressed || s.Written < partCatchUp*s.Grown:
		return partHurried * p.PartBytes, 0
	case s.Awaited:
		return p.PartBytes, min(s.Took*partPauseFactorAwaited, partPauseMax)
	}
	return p.PartBytes, min(s.Took*partPauseFactor, partPauseMax)
}

// RemovalStats is what is known after a part of a removal of dead rows.
type RemovalStats struct {
	Took       time.Duration // the part
	Bytes      int64         // it was to read and write at most
	Full       bool          // and would have taken more rows otherwise
	Rows, Left int           // that it has taken, and that are left
	Awaited    bool          // somebody waits for the end
}

// RemovalStep answers how many bytes of the database the next part of a removal
// reads and writes, and how long to leave disk and processors to the writes before
// it. What a part takes is measured on the disk that the writes wait for: it keeps to
// removalStepTime, whatever rows, disk and list of free pages are like. A removal
// that nobody waits for takes as little of the time as it can to be over before the
// next compaction.
func RemovalStep(s RemovalStats) (bytes int64, pause time.Duration) {
	bytes = s.Bytes
	switch {
	case s.Took > removalStepTime:
		bytes = max(bytes/2, removalStepBytesMin)
	case s.Took < removalStepTime/2 && s.Full:
		bytes = min(bytes*2, removalStepBytesMax)
	}
	least, most := min(removalPauseFactorAwaited*s.Took, removalPauseMax), min(max(removalPauseFactor*s.Took, removalPauseMin), removalPauseMax)
	if s.Awaited {
		return bytes, least
	}
	parts := s.Left/max(s.Rows, 1) + 1
	return bytes, min(max(removalTime/time.Duration(parts)-s.Took, least), most)
}

// RemovalRetry answers how long to leave a disk alone on which so many parts of a
// removal have failed in a row.
func RemovalRetry(failures int) time.Duration { return checkpointPause(failures) }

// checkpointPause answers how long to leave a failing disk alone.
func checkpointPause(failures int) time.Duration {
	return RetryPause(failures, checkpointRetryMin, checkpointRetryMax)
}

// RetryPause answers how long to wait after so many failures in a row: least
// after the first, twice as long after each other one, and most at most.
func RetryPause(failures int, least, most time.Duration) time.Duration {
	pause := least
	for ; failures > 1 && pause < most; failures-- {
		pause *= 2
	}
	return min(pause, most)
}
