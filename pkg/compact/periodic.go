package compact

import (
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// keepPeriod is the schedule of periodic mode.
type keepPeriod struct {
	period   time.Duration
	interval time.Duration   // between compactions: the period, or an hour
	wait     time.Duration   // since the last success; the period at first
	notes    []mvcc.Revision // oldest first; with notesMax of them, notes[0] is one period old
	notesMax int
	last     mvcc.Revision // compacted
	lastAt   time.Time     // when, or when all began
}

func newKeepPeriod(period time.Duration, now time.Time) *keepPeriod {
	k := &keepPeriod{period: period, interval: min(period, intervalMax), wait: period, lastAt: now}
	k.notesMax = int(period/k.tick()) + 1
	return k
}

func (k *keepPeriod) tick() time.Duration { return k.interval / retryDivisor }

func (k *keepPeriod) note(current mvcc.Revision) {
	if len(k.notes) == k.notesMax {
		copy(k.notes, k.notes[1:])
		k.notes = k.notes[:len(k.notes)-1]
	}
	k.notes = append(k.notes, current)
}

func (k *keepPeriod) due(now time.Time, _ mvcc.Revision) (mvcc.Revision, bool) {
	rev := k.notes[0]
	if now.Sub(k.lastAt) < k.wait || rev == k.last {
		return 0, false
	}
	// The first period is over, whether this attempt succeeds or not.
	k.wait = k.interval
	return rev, true
}

func (k *keepPeriod) done(now time.Time, rev mvcc.Revision) {
	k.last, k.lastAt = rev, now
}
