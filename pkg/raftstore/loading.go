package raftstore

import (
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Loading tells how far Open has come. The zero value belongs to one Open, which writes it; any goroutine may call String.
type Loading struct {
	step atomic.Pointer[loadingStep]
	done atomic.Int64 // of the step
	told atomic.Int64 // when an event said so last, in nanoseconds
}

// loadingStep is what is done, and how many of it there are; 0: that is not known.
type loadingStep struct {
	what string
	of   int64
}

// The steps of Open that take time.
const (
	loadingRows    = "rows of the database"
	loadingLog     = "reading the log"
	loadingEntries = "entries of the log"
	loadingLeader  = "waiting for a leader"
)

// String is how far it has come, as "40 % of 1000000 rows of the database".
func (l *Loading) String() string {
	s := l.step.Load()
	switch {
	case s == nil:
		return "not begun"
	case s.of == 0:
		return s.what
	}
	return fmt.Sprintf("%d %% of %d %s", min(100*l.done.Load()/s.of, 100), s.of, s.what)
}

func (l *Loading) begin(what string, of int64) {
	l.told.CompareAndSwap(0, time.Now().UnixNano())
	l.done.Store(0)
	l.step.Store(&loadingStep{what, of})
}

// add counts, and has one of those who count tell of it each loadingInterval.
func (l *Loading) add(n int64, tell func(Event)) {
	l.done.Add(n)
	now, told := time.Now().UnixNano(), l.told.Load()
	if now-told >= int64(loadingInterval) && l.told.CompareAndSwap(told, now) {
		tell(LoadingOn{l.String()})
	}
}

// count has the reading of rows counted.
func (l *Loading) count(parts []iter.Seq2[mvcc.Row, error], tell func(Event)) []iter.Seq2[mvcc.Row, error] {
	counted := make([]iter.Seq2[mvcc.Row, error], len(parts))
	for i, part := range parts {
		counted[i] = func(yield func(mvcc.Row, error) bool) {
			n := 0
			for row, err := range part {
				if n++; n%loadingCounted == 0 {
					l.add(loadingCounted, tell)
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
	return counted
}
