package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// phase is a part of a soak: the load with some disturbances beside it.
type phase struct {
	name string
	// share is its part of the whole length.
	share float64
	with  []disturbance
}

const (
	quiet    = "quiet"
	together = "all of it together"
	killed   = "kill -9"
)

// phases are a short soak's, or those of one that goes on with more rounds of
// everything together. only leaves out those whose name has none of these words.
func phases(rounds int, only string) []phase {
	everything := []disturbance{compactions, defragmentations, asChild("snapshots"), asChild("watchers"), asChild("lists"), expiries, quotaReached}
	calm := phase{quiet, 0.065, nil}
	alone := func(name string, d disturbance) phase { return phase{name, 0.065, []disturbance{compactions, d}} }
	plan := []phase{
		calm,
		{"compaction", 0.1, []disturbance{compactions}},
		alone("defragmentation", defragmentations),
		alone("snapshots", asChild("snapshots")),
		calm,
		alone("watchers that do not read", asChild("watchers")),
		alone("LIST storms", asChild("lists")),
		alone("leases that expire", expiries),
		alone("quota reached and cleared", quotaReached),
	}
	for range rounds {
		plan = append(plan, phase{together, 0.27 / 3, everything})
	}
	plan = append(plan, calm)
	if only == "" {
		return plan
	}
	var some []phase
	for _, p := range plan {
		if p.name != quiet && slices.ContainsFunc(strings.Split(only, ","), func(word string) bool { return strings.Contains(p.name, word) }) {
			some = append(some, calm, p)
		}
	}
	return some
}

// run is one phase; what it measures is in the report afterwards.
func (s *soak) run(ctx context.Context, p phase) error {
	before, err := s.server.Usage()
	if err != nil {
		return err
	}
	r, samples := newRecorder(), newSampler(s)
	s.load.now.Store(r)
	s.notes = newNotes()
	s.beside.notes = s.notes
	s.mark("phase " + p.name)
	begin := time.Now()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	time.AfterFunc(time.Duration(p.share*float64(s.length)), cancel)
	var wg sync.WaitGroup
	failed := make([]error, len(p.with)+1)
	for i, d := range p.with {
		wg.Go(func() { failed[i] = d(within, s.beside) })
	}
	wg.Go(func() { failed[len(p.with)] = samples.run(within) })
	<-within.Done()
	after, err := s.server.Usage()
	s.load.now.Store(newRecorder()) // nobody's: things are put right
	seconds := time.Since(begin).Seconds()
	wg.Wait()
	if err = errors.Join(append(failed, err, ctx.Err())...); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	f := figuresOf(p.name, r)
	f.Seconds, f.CPU, f.Written = seconds, (after.CPU-before.CPU).Seconds()/seconds, after.Written-before.Written
	f.Note = s.notes.String()
	f.resourcesUsed = samples.median()
	s.report.Phases = append(s.report.Phases, f)
	s.recorders[p.name] = append(s.recorders[p.name], r)
	s.notes.trace(s.trace, s.begin, r)
	s.say(f.String())
	pause(ctx, s.length/200)
	return nil
}
