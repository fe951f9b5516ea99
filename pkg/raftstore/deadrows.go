package raftstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// removal is how the rows that a compaction has made dead leave bbolt: in small transactions with pauses, so that writes hardly notice.
// A checkpoint takes the first of them along; each part after it is that checkpoint once more, without new rows, so the file stays
// at its index (I3). As rows that are dead mean nothing, a crash, a backup or a defragmentation may come between two parts: the
// file says that the compaction is scheduled and not finished, and the next start finds the rows again, as etcd's does.
//
// It belongs to the checkpoint goroutine. The zero value has nothing to remove.
type removal struct {
	batch   backend.Batch    // the last checkpoint without its new rows; Dead is what is left
	due     <-chan time.Time // the next part; nil: none
	waiters []chan error     // of capacity 1: for nothing to be left
	began   time.Time        // of the first part
	rows    int              // deleted since then
	parts   int

	failures int // of parts, in a row
}

// with answers what is left and what the next checkpoint names, in the order of revisions.
func (r *removal) with(dead []mvcc.RowKey) []mvcc.RowKey {
	if len(r.batch.Dead) == 0 {
		return dead
	}
	all := slices.Concat(r.batch.Dead, dead)
	slices.SortFunc(all, mvcc.RowKey.Compare)
	return all
}

// bytesMax is how much of the file the next part may read and write.
func (r *removal) bytesMax() int64 {
	if r.batch.DeadBytesMax == 0 { // none has been measured
		return compact.RemovalStepBytes
	}
	return r.batch.DeadBytesMax
}

// answer wakes who waits.
func (r *removal) answer(err error) {
	for _, w := range r.waiters {
		w <- err
	}
	r.waiters = nil
}

// goOn is called when b was written, in so long with all of its parts, and the first dead rows of b.Dead are gone.
func (c *checkpointer) goOn(b backend.Batch, dead int, took time.Duration) {
	r := &c.removal
	if r.parts == 0 {
		r.began = time.Now().Add(-took)
	}
	r.rows, r.parts = r.rows+dead, r.parts+1
	b.Puts, b.LeasesPut, b.LeasesDeleted = nil, nil, nil
	if left := b.Dead[dead:]; len(left) > 0 {
		bytes, pause := compact.RemovalStep(compact.RemovalStats{Took: c.commitTook, Bytes: b.DeadBytesMax, Full: dead < b.DeadMax,
			Rows: dead, Left: len(left), Awaited: len(r.waiters) > 0})
		b.Dead, b.DeadBytesMax = left, bytes
		r.batch, r.due = b, time.After(pause)
		return
	}
	if r.parts > 1 {
		c.s.cfg.OnEvent(RemovalDone{Rows: r.rows, Parts: r.parts, Took: time.Since(r.began)})
	}
	r.answer(nil)
	*r = removal{}
}

// remove deletes the next part of the dead rows.
func (c *checkpointer) remove() {
	start := time.Now()
	c.s.room.Lock()
	dead, err := c.commit(c.removal.batch)
	c.s.room.Unlock()
	if err != nil {
		c.removal.failures++
		_ = c.tellFailed("removal of dead rows", err)
		c.removal.due = time.After(compact.RemovalRetry(c.removal.failures))
		c.removal.answer(fmt.Errorf("remove dead rows: %w", err))
		return
	}
	c.removal.failures = 0
	c.goOn(c.removal.batch, dead, time.Since(start))
}

// removed makes a checkpoint and waits until no dead row is left in bbolt.
func (c *checkpointer) removed(ctx context.Context) error {
	gone := make(chan error, 1)
	err := c.call(ctx, func() error {
		if err := c.write("compaction"); err != nil {
			return err
		}
		if len(c.removal.batch.Dead) == 0 {
			gone <- nil
		} else {
			c.removal.waiters = append(c.removal.waiters, gone)
		}
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-gone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.s.stop:
		return ErrStopped
	}
}
