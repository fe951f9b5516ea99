package compact

import (
	"errors"
	"fmt"
	"time"
)

// DefragPolicy says when the database file is written anew without its free
// pages. The zero value is the default.
type DefragPolicy struct {
	// Off leaves it to who asks for it (--auto-defrag=false).
	Off bool
	// StartBytes that are free at a start make one due at once
	// (--bootstrap-defrag-threshold-megabytes), whatever Off says. 0: none do.
	StartBytes int64
	// FreeBytes is how much has to be free for it to pay. Less gives small disks
	// their room back; more saves writes.
	FreeBytes int64
	// Window is over how long a page has to have been free to count. A shorter
	// one gives pages back that the next checkpoints ask for again.
	Window time.Duration
	// Interval is the least between two that nobody asked for. A longer one
	// saves writes.
	Interval time.Duration
}

// EnsureDefaults fills in what is zero.
func (p *DefragPolicy) EnsureDefaults() {
	if p.FreeBytes == 0 {
		p.FreeBytes = DefaultDefragFreeBytes
	}
	if p.Window == 0 {
		p.Window = DefaultDefragWindow
	}
	if p.Interval == 0 {
		p.Interval = DefaultDefragInterval
	}
}

// Validate reports everything that is wrong.
func (p *DefragPolicy) Validate() error {
	var errs []error
	if p.FreeBytes < 0 {
		errs = append(errs, fmt.Errorf("defragmentation for %d free bytes", p.FreeBytes))
	}
	if p.Window < 0 || p.Interval < 0 {
		errs = append(errs, fmt.Errorf("defragmentation of what was free for %v, each %v", p.Window, p.Interval))
	}
	return errors.Join(errs...)
}

// FreeLow finds out how much of a file is not needed: the least that was free
// over a while. Pages that a compaction frees, and the next checkpoint uses,
// do not count. The zero value has seen nothing.
type FreeLow struct {
	from        time.Time
	checkpoints uint64
	low, before int64 // bytes, since from and in the window before it
	whole       bool  // there was a window before
}

// Look notes the bytes that are free now, after so many checkpoints, and
// answers the least of the last window; 0 before there was one. A window lasts
// that long, and two checkpoints.
func (f *FreeLow) Look(free int64, checkpoints uint64, now time.Time, window time.Duration) int64 {
	switch {
	case f.from.IsZero():
		f.from, f.checkpoints, f.low = now, checkpoints, free
	case now.Sub(f.from) >= window && checkpoints-f.checkpoints >= defragCheckpoints:
		f.before, f.whole = min(f.low, free), true
		f.from, f.checkpoints, f.low = now, checkpoints, free
	default:
		f.low = min(f.low, free)
	}
	if !f.whole {
		return 0
	}
	return min(f.before, f.low)
}

// DefragStats is what a decision is made from.
type DefragStats struct {
	InUseBytes   int64         // of the file
	IdleBytes    int64         // that are free and not needed: FreeLow
	DiskBytes    int64         // that the disk has left; negative: not known
	Since        time.Duration // since the last one, or the start
	Failures     int           // in a row
	SinceFailure time.Duration // since the last of them
	Removing     bool          // dead rows are being removed
	Sending      bool          // a snapshot is being sent
	Turn         bool          // of this member: DefragTurn
}

// DefragReason says why a defragmentation is due, or why it is not.
type DefragReason string

// The reasons.
const (
	DefragDue      DefragReason = "free pages"
	DefragOff      DefragReason = "it is switched off"
	DefragNoGain   DefragReason = "there is little to gain"
	DefragPause    DefragReason = "pause after a failure"
	DefragRecent   DefragReason = "the last one was a short while ago"
	DefragRemoving DefragReason = "dead rows are being removed"
	DefragSending  DefragReason = "a snapshot is being sent"
	DefragNoRoom   DefragReason = "the disk has no room for the copy"
	DefragNotTurn  DefragReason = "it is another member's turn"
)

// DefragDecision is an answer with its reason.
type DefragDecision struct {
	Do     bool
	Reason DefragReason
}

// String is the decision as a part of a line of a log.
func (d DefragDecision) String() string {
	if d.Do {
		return "defragmentation: " + string(d.Reason)
	}
	return "no defragmentation: " + string(d.Reason)
}

// AtStart says whether one is due behind a start, with so many bytes free.
func (p DefragPolicy) AtStart(free int64) bool { return p.StartBytes > 0 && free >= p.StartBytes }

// Decide says whether a defragmentation that nobody asked for is due. It pays
// if it gives back more than half of what it writes. Zero bounds are defaults.
func (p DefragPolicy) Decide(s DefragStats) DefragDecision {
	p.EnsureDefaults()
	switch {
	case p.Off:
		return DefragDecision{false, DefragOff}
	case s.IdleBytes < p.FreeBytes || s.IdleBytes < s.InUseBytes/defragGainDivisor:
		return DefragDecision{false, DefragNoGain}
	case s.Failures > 0 && s.SinceFailure < RetryPause(s.Failures, defragRetryMin, defragRetryMax):
		return DefragDecision{false, DefragPause}
	case s.Since < p.Interval:
		return DefragDecision{false, DefragRecent}
	case s.Removing:
		return DefragDecision{false, DefragRemoving}
	case s.Sending:
		return DefragDecision{false, DefragSending}
	case s.DiskBytes >= 0 && s.DiskBytes < DefragRoom(s.InUseBytes):
		return DefragDecision{false, DefragNoRoom}
	case !s.Turn:
		return DefragDecision{false, DefragNotTurn}
	}
	return DefragDecision{true, DefragDue}
}

// DefragRoom answers how many bytes a disk has to have left for the copy of so
// many bytes in use, and for the log to go on beside it.
func DefragRoom(inUse int64) int64 { return inUse + inUse/16 + defragReserveBytes }

// DefragTurn says whether it is the turn of the member that is the rank-th of
// so many, so that they do not all copy at once: each has its minutes by the
// clock.
func DefragTurn(rank, members int, now time.Time) bool {
	if members < 2 {
		return true
	}
	return int(now.Unix()/int64(defragTurn/time.Second)%int64(members)) == rank
}

// CopyStep answers how much of the database the next step of a copy takes, and
// the pause before it, after a step of so many bytes that took so long. A write
// that meets a step waits for the disk until the step is synced, so steps have
// a time to keep to. The pauses are the shorter if somebody waits.
func CopyStep(bytes int, took time.Duration, awaited bool) (next int, pause time.Duration) {
	next = bytes
	switch {
	case took > copyStepTime:
		next = max(bytes/2, copyStepBytesMin)
	case took < copyStepTime/2:
		next = min(bytes*2, copyStepBytesMax)
	}
	if awaited {
		return next, min(took*copyPauseFactorAwaited, copyPauseMax)
	}
	return next, min(took*copyPauseFactor, copyPauseMax)
}
