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

// phase is a window of time: the load with some disturbances beside it, or with
// none.
type phase struct {
	name string
	// share is its part of the length.
	share float64
	with  []disturbance
	// of names the phase before, if this one belongs to it: then no quiet window is
	// between the two.
	of string
	// elsewhere: the disturbances are of a second server on the same machine, which
	// has no other load. What is felt of them then is not this server's doing.
	elsewhere bool
}

// Shares of a window. In ten minutes a compaction comes in each of them, and each
// 22 seconds with the quiet window before it.
const (
	quietShare    = 0.011
	upkeepShare   = 0.024
	quotaShare    = 0.046 // the quota takes longer until it is cleared
	fillShare     = 0.020 // as long as it takes to fill it
	togetherShare = 0.058
	settleShare   = 0.0025 // for what goes on behind a window

	lengthDefault = 10 * time.Minute
	// roundsOfLength are as many rounds as the length has room for.
	roundsOfLength = 2
)

const (
	quiet    = "quiet"
	together = "all of it together"
	// fillAlone is no upkeep: what the client's fill costs, quota or not.
	fillAlone    = "the same fill, far from the quota"
	quotaCleared = "quota reached and cleared"
)

// phases are all windows: in each round every disturbance by itself, and all of
// them together, with a quiet window before and behind each, so that both see the
// disk and the machine at the same time. Behind those that need the most of the
// machine the same goes on elsewhere, and behind the quota its fill without a
// quota. only leaves out those whose name has none
// of these words.
func phases(rounds int, only string) (plan []phase) {
	calm := phase{name: quiet, share: quietShare}
	for range rounds {
		for _, p := range upkeep() {
			if only != "" && !slices.ContainsFunc(strings.Split(only, ","), func(word string) bool { return strings.Contains(p.name, word) }) {
				continue
			}
			if len(plan) == 0 || p.of == "" || plan[len(plan)-1].name != p.of {
				plan = append(plan, calm)
			}
			plan = append(plan, p)
			if p.elsewhere {
				own := p
				own.elsewhere = false
				plan[len(plan)-1] = own
				plan = append(plan, p)
			}
		}
	}
	return append(plan, calm)
}

// upkeep is what each round has. Those that are elsewhere are here, too.
func upkeep() []phase {
	alone := func(name string, d disturbance) phase {
		return phase{name: name, share: upkeepShare, with: []disturbance{compactions, d}}
	}
	twice := func(p phase) phase { p.elsewhere = true; return p }
	quota := alone(quotaCleared, quotaReached)
	quota.share = quotaShare
	fill := phase{name: fillAlone, share: fillShare, with: []disturbance{compactions, farFromQuota}, of: quotaCleared}
	everything := []disturbance{compactions, defragmentations, overLink("snapshots"), overLink("watchers"), overLink("lists"), expiries, quotaReached}
	return []phase{
		{name: "compaction", share: upkeepShare, with: []disturbance{compactions}},
		alone("defragmentation", defragmentations),
		twice(alone("snapshots", overLink("snapshots"))),
		alone("watchers that do not read", overLink("watchers")),
		twice(alone("LIST storms", overLink("lists"))),
		alone("LIST storms at loopback speed", atLoopback("lists")),
		alone("leases that expire", expiries),
		quota,
		fill,
		twice(phase{name: together, share: togetherShare, with: everything}),
	}
}

// run is one window; what it measures is in the report afterwards.
func (s *soak) run(ctx context.Context, p phase) error {
	before, err := s.server.Usage()
	if err != nil {
		return err
	}
	r, samples, disturbed := newRecorder(), newSampler(s), s
	if p.elsewhere {
		disturbed = s.beside
	}
	s.load.now.Store(r)
	s.probe.now.Store(r)
	s.notes = newNotes()
	disturbed.notes = s.notes
	s.mark("phase " + p.title())
	begin := time.Now()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	time.AfterFunc(time.Duration(p.share*float64(s.length)), cancel)
	var wg sync.WaitGroup
	failed := make([]error, len(p.with)+1)
	for i, d := range p.with {
		wg.Go(func() { failed[i] = d(within, disturbed) })
	}
	wg.Go(func() { failed[len(p.with)] = samples.run(within) })
	<-within.Done()
	r.divide(s.notes.divided()) // those that begin later are nobody's
	after, err := s.server.Usage()
	s.load.now.Store(newRecorder()) // nobody's: things are put right
	s.probe.now.Store(newRecorder())
	seconds := time.Since(begin).Seconds()
	wg.Wait()
	if err = errors.Join(append(failed, err, ctx.Err())...); err != nil {
		return fmt.Errorf("%s: %w", p.title(), err)
	}
	f := figuresOf(p.name, r)
	f.Elsewhere = p.elsewhere
	f.Seconds, f.CPU, f.Written = seconds, (after.CPU-before.CPU).Seconds()/seconds, after.Written-before.Written
	f.Note = s.notes.String()
	f.resourcesUsed = samples.median()
	s.report.Phases = append(s.report.Phases, f)
	s.recorders = append(s.recorders, r)
	s.notes.trace(s.trace, s.begin, r)
	s.say(f.String())
	if len(p.with) > 0 {
		pause(ctx, time.Duration(settleShare*float64(s.length)))
	}
	return nil
}

func (p phase) title() string {
	if p.elsewhere {
		return p.name + elsewhereSuffix
	}
	return p.name
}
