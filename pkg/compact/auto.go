package compact

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Env is what an Auto needs from its host. Revision, Compact, Now and After
// must be set.
type Env struct {
	// Revision answers the current revision of the store.
	Revision func() mvcc.Revision
	// Compact compacts at the revision and answers once that is decided.
	// mvcc.ErrCompacted counts as success: somebody else did it.
	Compact func(context.Context, mvcc.Revision) error
	// Now and After are the clock: time.Now and time.After outside of tests.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Paused says whether to sit a turn out. Nil: never.
	Paused func() bool
	// Event is told of each compaction. Nil: nobody is.
	Event func(Event)
}

// Event is one automatic compaction.
type Event struct {
	Mode     Mode
	Revision mvcc.Revision
	Took     time.Duration
	Err      error // nil: it succeeded
}

// String is the event as one line of a log.
func (e Event) String() string {
	if e.Err != nil {
		return fmt.Sprintf("automatic %s compaction at revision %d failed after %v: %v", e.Mode, e.Revision, e.Took, e.Err)
	}
	return fmt.Sprintf("automatic %s compaction at revision %d took %v", e.Mode, e.Revision, e.Took)
}

// schedule is the pure part of a mode. All its methods are called in a round:
// note, a wait of tick, due, and done if a compaction succeeded.
type schedule interface {
	tick() time.Duration
	note(current mvcc.Revision)
	due(now time.Time, current mvcc.Revision) (mvcc.Revision, bool)
	done(now time.Time, rev mvcc.Revision)
}

// Auto compacts on its own. Make it with New, and give it a goroutine by Run.
type Auto struct {
	o   Options
	env Env
}

// New answers an Auto that does nothing yet. It reports options that are wrong.
func New(o Options, env Env) (*Auto, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Auto{o: o, env: env}, nil
}

// Run compacts as the options say until the context ends; at once if they say
// that nothing is to be done.
func (a *Auto) Run(ctx context.Context) {
	if !a.o.Enabled() {
		return
	}
	var s schedule
	if a.o.Mode == ModeRevision {
		s = &keepRevisions{keep: a.o.Keep}
	} else {
		s = newKeepPeriod(a.o.Period, a.env.Now())
	}
	for {
		s.note(a.env.Revision())
		select {
		case <-ctx.Done():
			return
		case <-a.env.After(s.tick()):
		}
		if a.env.Paused != nil && a.env.Paused() {
			continue
		}
		if rev, ok := s.due(a.env.Now(), a.env.Revision()); ok {
			a.compact(ctx, s, rev)
		}
	}
}

func (a *Auto) compact(ctx context.Context, s schedule, rev mvcc.Revision) {
	start := a.env.Now()
	err := a.env.Compact(ctx, rev)
	if errors.Is(err, mvcc.ErrCompacted) {
		err = nil
	}
	now := a.env.Now()
	if err == nil {
		s.done(now, rev)
	}
	if a.env.Event != nil {
		a.env.Event(Event{Mode: a.o.Mode, Revision: rev, Took: now.Sub(start), Err: err})
	}
}
