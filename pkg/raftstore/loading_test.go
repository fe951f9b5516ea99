package raftstore

import (
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestLoading: rows that several goroutines read are counted, and told of once a second.
func TestLoading(t *testing.T) {
	var l Loading
	if got := l.String(); got != "not begun" {
		t.Errorf("before it began: %q", got)
	}
	l.begin(loadingLog, 0)
	if got := l.String(); got != loadingLog {
		t.Errorf("a step of unknown length: %q", got)
	}
	var events []Event
	tell := func(e Event) { events = append(events, e) }
	part := func(n int) iter.Seq2[mvcc.Row, error] {
		return func(yield func(mvcc.Row, error) bool) {
			for range n {
				if !yield(mvcc.Row{}, nil) {
					return
				}
			}
		}
	}
	l.begin(loadingRows, 8*loadingCounted)
	parts := l.count([]iter.Seq2[mvcc.Row, error]{part(2*loadingCounted + 1), part(4 * loadingCounted)}, tell)
	for range parts[0] {
	}
	if got, want := l.String(), fmt.Sprintf("25 %% of %d rows of the database", 8*loadingCounted); got != want {
		t.Errorf("after a quarter: %q, want %q", got, want)
	}
	if len(events) != 0 {
		t.Errorf("in the first second: %v", events)
	}
	l.told.Add(-int64(loadingInterval + time.Hour))
	for range parts[1] {
	}
	if want := (LoadingOn{fmt.Sprintf("37 %% of %d rows of the database", 8*loadingCounted)}); len(events) != 1 || events[0] != want {
		t.Errorf("events %v, want %v", events, want)
	}
}

// TestLoadingOfAStart: Open tells of its steps, rows and entries among them.
func TestLoadingOfAStart(t *testing.T) {
	h := newHarness(t)
	var l *Loading
	h.adjust = func(c *Config) { l = &Loading{}; c.Loading = l }
	s := h.open()
	for i := range 3 * loadingCounted {
		put(t, s, fmt.Sprint(i), "v")
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * loadingCounted {
		put(t, s, fmt.Sprint(i), "v")
	}
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(-time.Hour)
	h.adjust = func(c *Config) { l = &Loading{}; l.told.Store(now.UnixNano()); c.Loading = l }
	s = h.open()
	closeStore(t, s)
	var told []string
	for _, e := range h.structs {
		if e, ok := e.(LoadingOn); ok {
			told = append(told, e.Progress)
		}
	}
	if len(told) == 0 {
		t.Error("nothing was told of a start that began an hour ago")
	}
	if got := l.String(); got != loadingLeader {
		t.Errorf("after the start: %q", got)
	}
}
