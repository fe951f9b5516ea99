package main

import (
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"
)

// As etcd's logger does it: of the lines with one level and message, the first
// samplerFirst in a second are written and each samplerThereafter-th of the
// rest. Messages share samplerCounters places.
const (
	samplerFirst      = 100
	samplerThereafter = 100
	samplerInterval   = time.Second
	samplerCounters   = 4096
)

// logSampler bounds how many lines with equal messages are written. The zero
// value is ready.
type logSampler struct {
	counters [samplerCounters]struct{ second, n atomic.Int64 }
}

var samplerSeed = maphash.MakeSeed()

// admit says whether the line is to be written.
func (s *logSampler) admit(r slog.Record) bool {
	if r.Level >= levelFatal {
		return true
	}
	hash := maphash.String(samplerSeed, r.Message) + uint64(r.Level)
	c := &s.counters[hash%samplerCounters]
	second := r.Time.UnixNano() / int64(samplerInterval)
	if was := c.second.Load(); was != second && c.second.CompareAndSwap(was, second) {
		c.n.Store(0)
	}
	n := c.n.Add(1)
	return n <= samplerFirst || (n-samplerFirst)%samplerThereafter == 0
}
