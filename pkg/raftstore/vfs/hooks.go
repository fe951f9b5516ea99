package vfs

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// FailNth makes the nth call (from 1) for which match holds fail with err, that one only.
func FailNth(n int64, err error, match func(Op) bool) func(Op) error {
	var seen atomic.Int64
	return func(op Op) error {
		if match(op) && seen.Add(1) == n {
			return err
		}
		return nil
	}
}

// SpaceBudget lets bytes be written and preallocated up to a budget; the call that passes it, and each that takes space
// after it, fails with ENOSPC, a write after the part of it that fitted.
type SpaceBudget struct{ left atomic.Int64 }

// NewSpaceBudget gives a budget in bytes.
func NewSpaceBudget(bytes int64) *SpaceBudget {
	b := &SpaceBudget{}
	b.left.Store(bytes)
	return b
}

// Add gives more bytes.
func (b *SpaceBudget) Add(bytes int64) { b.left.Add(bytes) }

// Before is the hook.
func (b *SpaceBudget) Before(op Op) error {
	if op.Kind != OpWrite && op.Kind != OpPreallocate {
		return nil
	}
	for {
		left := b.left.Load()
		if op.Bytes <= left {
			if b.left.CompareAndSwap(left, left-op.Bytes) {
				return nil
			}
			continue
		}
		if op.Kind == OpWrite && left > 0 {
			b.left.CompareAndSwap(left, 0)
			return &ShortWrite{Bytes: left, Err: syscall.ENOSPC}
		}
		return syscall.ENOSPC
	}
}

// Recorder keeps one line for each call that changes something, for golden tests.
type Recorder struct {
	mu    sync.Mutex
	lines []string
}

// After is the hook.
func (r *Recorder) After(op Op, err error) {
	if !op.Kind.Changes() {
		return
	}
	line := op.String()
	if err != nil {
		line = fmt.Sprintf("%s: %v", line, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// Take gives the lines since the last Take, each ended by a newline.
func (r *Recorder) Take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
