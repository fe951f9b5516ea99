package raftstore

import (
	"slices"
	"sync"
)

// mailbox hands work to one goroutine. put never blocks; the owner takes everything at once, so a batch costs one lock on each
// side. What bounds it is said where it is made: a limit here, or the flow control of the node goroutine.
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	spare []T           // the slice handed back by the owner
	limit int           // 0: bounded elsewhere
	wake  chan struct{} // capacity 1; may be shared by the mailboxes of one owner
}

func newMailbox[T any](limit int, wake chan struct{}) *mailbox[T] {
	return &mailbox[T]{limit: limit, wake: wake}
}

// put is false when the mailbox is full.
func (m *mailbox[T]) put(items ...T) bool {
	ok := m.leave(items...)
	if ok {
		poke(m.wake)
	}
	return ok
}

// leave is put without waking the owner: it is about to look by itself.
func (m *mailbox[T]) leave(items ...T) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 && len(m.items)+len(items) > m.limit {
		return false
	}
	m.items = append(m.items, items...)
	return true
}

// take is all that was put since. The slice belongs to the caller until it calls recycle.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items, m.spare = m.spare, nil
	return items
}

// takeBatch appends the oldest items to dst: at least one if there is any, at most n, and no more than fit into bytes.
func (m *mailbox[T]) takeBatch(dst []T, n, bytes int, size func(T) int) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := 0
	for taken < len(m.items) && taken < n {
		bytes -= size(m.items[taken])
		if taken > 0 && bytes < 0 {
			break
		}
		taken++
	}
	dst = append(dst, m.items[:taken]...)
	rest := copy(m.items, m.items[taken:])
	clear(m.items[rest:])
	m.items = m.items[:rest]
	return dst
}

// drop forgets the items that it is true of.
func (m *mailbox[T]) drop(gone func(T) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items = slices.DeleteFunc(m.items, gone)
}

// recycle gives the slice of a take back.
func (m *mailbox[T]) recycle(items []T) {
	clear(items)
	if cap(items) > mailboxKeepMax {
		return
	}
	m.mu.Lock()
	m.spare = items[:0]
	m.mu.Unlock()
}

func (m *mailbox[T]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items)
}
