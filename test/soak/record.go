package main

import (
	"slices"
	"sync"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
)

// recorder keeps the latencies of a window.
type recorder struct {
	mu      sync.Mutex // guards all
	writes  []written
	reads   []time.Duration
	late    []time.Duration
	syncs   []time.Duration // of the probe
	stalls  []stall         // of these
	parts   []marked        // of the window, in the order of time
	refused int
	unknown int
}

type written struct {
	kind string
	due  time.Time
	took time.Duration
}

// stall is a sync of the probe that took stallMin or longer.
type stall struct{ from, to time.Time }

// during: the write was under way in it.
func (s stall) during(w written) bool { return w.due.Before(s.to) && w.due.Add(w.took).After(s.from) }

func newRecorder() *recorder { return &recorder{} }

func (r *recorder) wrote(kind string, due time.Time, took time.Duration, out outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch out {
	case acked:
		r.writes = append(r.writes, written{kind, due, took})
	case refused:
		r.refused++
	default:
		r.unknown++
	}
}

// divide names the parts of the window.
func (r *recorder) divide(parts []marked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = parts
}

func (r *recorder) read(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = append(r.reads, took)
}

func (r *recorder) lateWrite(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = append(r.late, by)
}

func (r *recorder) synced(begin time.Time, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syncs = append(r.syncs, took)
	if took >= stallMin {
		r.stalls = append(r.stalls, stall{begin, begin.Add(took)})
	}
}

// latencies are quantiles.
type latencies struct {
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p99.9_ns"`
	Max  time.Duration `json:"max_ns"`
}

func quantiles(took []time.Duration) latencies {
	slices.Sort(took)
	return latencies{measure.Quantile(took, 0.5), measure.Quantile(took, 0.99), measure.Quantile(took, 0.999), measure.Quantile(took, 1)}
}

// writesOf are the latencies of the writes of some windows.
func writesOf(recorders ...*recorder) (took []time.Duration) {
	for _, r := range recorders {
		r.mu.Lock()
		for _, w := range r.writes {
			took = append(took, w.took)
		}
		r.mu.Unlock()
	}
	return took
}

// syncsOf are what the probe's syncs took in some windows.
func syncsOf(recorders ...*recorder) (took []time.Duration) {
	for _, r := range recorders {
		r.mu.Lock()
		took = append(took, r.syncs...)
		r.mu.Unlock()
	}
	return took
}

// partsOf are the writes of windows by their parts, each to the next one's beginning
// or to the window's end, but for those that a stall of the disk has met.
func partsOf(recorders ...*recorder) (names []string, took map[string][]time.Duration) {
	took = make(map[string][]time.Duration)
	for _, r := range recorders {
		r.mu.Lock()
		for _, p := range r.parts {
			if !slices.Contains(names, p.what) {
				names = append(names, p.what)
			}
		}
		for _, w := range r.writes {
			if name := r.partAt(w.due); name != "" && !r.stalled(w) {
				took[name] = append(took[name], w.took)
			}
		}
		r.mu.Unlock()
	}
	return names, took
}

// partAt is the name of the part at a time; empty before the first.
func (r *recorder) partAt(at time.Time) (name string) {
	for _, p := range r.parts {
		if !p.at.After(at) {
			name = p.what
		}
	}
	return name
}

// stalled: a stall of the disk has met the write.
func (r *recorder) stalled(w written) bool {
	return slices.ContainsFunc(r.stalls, func(s stall) bool { return s.during(w) })
}

// calmOf are the latencies of those writes that no stall of the disk has met, and
// stalled is how long it has stalled.
func calmOf(recorders ...*recorder) (took []time.Duration, stalled time.Duration) {
	for _, r := range recorders {
		r.mu.Lock()
		for _, w := range r.writes {
			if !r.stalled(w) {
				took = append(took, w.took)
			}
		}
		for _, s := range r.stalls {
			stalled += s.to.Sub(s.from)
		}
		r.mu.Unlock()
	}
	return took, stalled
}
