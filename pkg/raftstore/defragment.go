package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
)

// defragmenter decides when the database file is written anew without its free pages, and lets one goroutine do it at a time. That one
// takes the steps of the copy on the checkpoint goroutine, each in a few milliseconds, and pauses in between; checkpoints, backups and
// dead rows take their turns meanwhile (package backend tells how the copy follows them).
//
// It belongs to the checkpoint goroutine. The zero value has done nothing yet.
type defragmenter struct {
	job      *defragmentation // nil: none is under way
	free     compact.FreeLow
	index    uint64    // of the last checkpoint that was seen
	seen     uint64    // checkpoints
	endedAt  time.Time // zero: there was none
	failures int       // in a row
	failedAt time.Time
	started  bool // what is due behind the start was looked at
	noRoom   bool // it was said that the disk has none
}

// defragmentation is one that is under way.
type defragmentation struct {
	awaited atomic.Bool   // by a caller
	done    chan struct{} // closed at the end
	err     error         // before done is closed

	// Of the goroutine that does it.
	before int64 // bytes of the file
	start  time.Time
	copied int64 // bytes
	worked int64 // bytes, as the copy counts them
	owed   int64 // bytes, that are to be worked off without a pause
	seen   int64 // bytes that were written meanwhile, when it was last looked
}

// Defragment writes the database file anew without its free pages, after the rows that compactions have made dead were removed, and waits
// for it. Reads, writes and checkpoints go on meanwhile. Who comes while one is under way waits for that one. When ctx ends only the wait
// does, as in etcd.
func (s *Store) Defragment(ctx context.Context) error {
	var d *defragmentation
	err := s.checkpoint.call(ctx, func() error { d = s.checkpoint.defragment(true); return nil })
	if err != nil {
		return err
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// defragment starts one unless it is under way.
func (c *checkpointer) defragment(awaited bool) *defragmentation {
	d := c.defrag.job
	if d == nil {
		d = &defragmentation{done: make(chan struct{}), start: time.Now()}
		c.defrag.job = d
		c.s.running.Go(func() { c.runDefragment(d) })
	}
	if awaited {
		d.awaited.Store(true)
	}
	return d
}

// considerDefragment asks the policy, with each poke.
func (c *checkpointer) considerDefragment() {
	d, now := &c.defrag, c.s.cfg.Now()
	if d.index != c.last.index {
		d.index, d.seen = c.last.index, d.seen+1
	}
	size, inUse := c.db.Size(), c.db.SizeInUse()
	idle := d.free.Look(size-inUse, d.seen, now, c.s.cfg.Defrag.Window)
	if d.job != nil {
		return
	}
	if !d.started {
		if d.started = true; c.s.cfg.Defrag.AtStart(size - inUse) {
			c.defragment(false)
			return
		}
	}
	got := c.s.cfg.Defrag.Decide(compact.DefragStats{
		InUseBytes: inUse, IdleBytes: idle, DiskBytes: c.db.DiskFree(),
		Since: now.Sub(d.endedAt), Failures: d.failures, SinceFailure: now.Sub(d.failedAt),
		Removing: len(c.removal.batch.Dead) > 0, Sending: c.s.streams.Load() > 0, Turn: c.defragTurn(now),
	})
	if got.Do {
		c.defragment(false)
	}
	if none := got.Reason == compact.DefragNoRoom; none != d.noRoom {
		if d.noRoom = none; none {
			c.s.cfg.OnEvent(DefragmentPutOff{Free: idle, Reason: string(got.Reason)})
		}
	}
}

func (c *checkpointer) defragTurn(now time.Time) bool {
	var ids []types.ID
	for _, m := range c.s.cluster.Load().Members() { // by ascending ID
		ids = append(ids, m.ID)
	}
	return compact.DefragTurn(slices.Index(ids, types.ID(c.s.id.member)), len(ids), now)
}

// runDefragment is the goroutine.
func (c *checkpointer) runDefragment(d *defragmentation) {
	s := c.s
	ended := s.metrics.defragmenting()
	err := c.copyDatabase(s.ctx, d)
	ended()
	took := time.Since(d.start)
	_ = c.call(context.Background(), func() error { // at the end of the store nobody asks any more
		c.defrag.job, c.defrag.endedAt, c.defrag.free = nil, s.cfg.Now(), compact.FreeLow{}
		if err != nil {
			c.defrag.failures, c.defrag.failedAt = c.defrag.failures+1, s.cfg.Now()
			s.cfg.OnEvent(DefragmentFailed{Err: err})
			return nil
		}
		c.defrag.failures = 0
		s.metrics.defragmented(took, d.before-c.db.Size())
		s.metrics.database(c.db.Size(), c.db.SizeInUse())
		s.cfg.OnEvent(DefragmentDone{Before: d.before, After: c.db.Size(), Copied: d.copied, Took: took, Asked: d.awaited.Load()})
		return nil
	})
	if err != nil {
		d.err = fmt.Errorf("defragment: %w", err)
	}
	if s.ctx.Err() != nil {
		d.err = ErrStopped
	}
	close(d.done)
}

// copyDatabase does it. Its calls do not end with a context: it goes on with what they have done.
func (c *checkpointer) copyDatabase(ctx context.Context, d *defragmentation) error {
	if d.awaited.Load() { // the policy has it begin when no rows are dead, or a few
		if err := c.awaitRemoval(ctx); err != nil {
			return err
		}
	}
	var copied *backend.Defragmentation
	err := c.call(context.Background(), func() (err error) {
		d.before = c.db.Size()
		if free, need := c.db.DiskFree(), compact.DefragRoom(c.db.SizeInUse()); free >= 0 && free < need {
			return fmt.Errorf("the copy needs %d bytes of the disk, which has %d left", need, free)
		}
		copied, err = c.db.StartDefragment()
		return err
	})
	for bytes := compact.CopyStepBytes; err == nil; {
		var done bool
		var took time.Duration
		err = c.call(context.Background(), func() (err error) {
			done, took, err = c.stepDefragment(d, copied, bytes)
			return err
		})
		if done || err != nil {
			return err
		}
		var pause time.Duration
		bytes, pause = compact.CopyStep(bytes, took, d.awaited.Load())
		if d.owed > 0 {
			pause = 0
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return err
}

// stepDefragment copies a part: a step, and as many more as it takes to work off catchUpFactor times what checkpoints have put, so that it
// comes to an end whatever is written. Behind catchUpMax others have their turn at the checkpoint goroutine, and the log at the room of the
// disk. It answers how long the last step took. Room on the disk is the log's first.
func (c *checkpointer) stepDefragment(d *defragmentation, copied *backend.Defragmentation, bytes int) (done bool, took time.Duration, err error) {
	if c.s.spaceLow.Load() {
		copied.Cancel()
		return false, 0, errors.New("the disk has become full")
	}
	d.owed += catchUpFactor * (copied.Written() - d.seen)
	d.seen = copied.Written()
	c.s.room.Lock()
	defer c.s.room.Unlock()
	begun := time.Now()
	for more := true; more; more = d.owed > 0 && !done && err == nil && time.Since(begun) < catchUpMax {
		start := time.Now()
		done, err = copied.Step(bytes)
		took = time.Since(start)
		c.s.metrics.defragmentCopied(copied.Copied() - d.copied)
		d.owed = max(d.owed-max(copied.Worked()-d.worked, 1), 0)
		d.copied, d.worked = copied.Copied(), copied.Worked()
	}
	return done, took, err
}

// awaitRemoval waits until the rows that a compaction has made dead are removed, so that they are not copied; under compactions that
// follow one another without end, not for ever.
func (c *checkpointer) awaitRemoval(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removalAwaitMax)
	defer cancel()
	err := c.s.CompactWait(ctx, c.s.View().Compacted())
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
