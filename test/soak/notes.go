package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// notes are of one phase.
type notes struct {
	mu      sync.Mutex // guards all
	counts  map[string]int
	longest map[string]time.Duration
	marks   []marked
	parts   []marked // those of them that divide the window
}

type marked struct {
	at   time.Time
	what string
}

func newNotes() *notes {
	return &notes{counts: map[string]int{}, longest: map[string]time.Duration{}}
}

func (n *notes) mark(at time.Time, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.marks = append(n.marks, marked{at, what})
}

func (n *notes) part(at time.Time, what string) {
	n.mark(at, what)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parts = append(n.parts, marked{at, what})
}

// divided are the parts so far.
func (n *notes) divided() []marked {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.parts)
}

func (n *notes) count(what string, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[what]++
	n.longest[what] = max(n.longest[what], took)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for _, what := range slices.Sorted(maps.Keys(n.counts)) {
		line := fmt.Sprintf("%d %s", n.counts[what], what)
		if d := n.longest[what]; d > 0 {
			line += fmt.Sprintf(" (the longest %v)", d.Round(time.Millisecond))
		}
		all = append(all, line)
	}
	return strings.Join(all, ", ")
}

// trace writes when things began and which writes were slow, in the order of
// time: what a stall is read from.
func (n *notes) trace(w io.Writer, begin time.Time, r *recorder) {
	const slow = 5 * time.Millisecond
	lines := slices.Clone(n.marks)
	for _, x := range r.writes {
		if x.took >= slow {
			lines = append(lines, marked{x.due, fmt.Sprintf("  %s took %.1f ms", x.kind, x.took.Seconds()*1e3)})
		}
	}
	slices.SortStableFunc(lines, func(a, b marked) int { return a.at.Compare(b.at) })
	for _, l := range lines {
		fmt.Fprintf(w, "%9.3f %s\n", l.at.Sub(begin).Seconds(), l.what)
	}
}

// say tells the reader at the terminal.
func (s *soak) say(line string) {
	fmt.Fprintf(os.Stderr, "%s %-5s %s\n", time.Now().Format(time.TimeOnly), s.name, line)
}

// mark notes in the trace that something begins.
func (s *soak) mark(what string) {
	s.notes.mark(time.Now(), what)
}

// part notes that another part of the window begins, which has figures of its own.
func (s *soak) part(what string) {
	s.notes.part(time.Now(), what)
}

// note counts what a disturbance did in this phase, and the longest of it.
func (s *soak) note(what string, took time.Duration) { s.notes.count(what, took) }
