package raftstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// checkpointer is the goroutine that owns the bbolt file. It writes the state at one applied index into it (I3), off the path of
// writes and reads: applying only captures what has changed. A failure loses nothing, since the WAL keeps what bbolt
// lacks; the next attempt covers it again.
type checkpointer struct {
	s        *Store
	db       *backend.DB
	tasks    chan checkpointTask   // callers wait for room
	poke     chan struct{}         // capacity 1: look at the policy
	installs *mailbox[installTask] // wakes with poke; one at a time
	crowded  atomic.Bool           // a checkpoint lets versions leave memory
	waiting  atomic.Int32          // callers of call
	burst    atomic.Int64          // what the WAL was given when it is poked with each tick from then on

	// All below belongs to the goroutine.
	last       mark
	lastAt     time.Time
	walSize    int64 // what the log was given before the last checkpoint
	removal    removal
	commitTook time.Duration // the last transaction of a checkpoint, or a part of a removal
	defrag     defragmenter
	growth     growth
	behind     compacted
	failures   int // in a row
	failedAt   time.Time
}

// checkpointTask is something to do on the goroutine.
type checkpointTask struct {
	do   func() error
	done chan error // capacity 1
}

// captured is the state to write.
type captured struct {
	state   *mvcc.Checkpoint
	cluster *membership.Cluster
}

func newCheckpointer(s *Store, db *backend.DB) *checkpointer {
	poke := make(chan struct{}, 1)
	return &checkpointer{s: s, db: db, tasks: make(chan checkpointTask), poke: poke, installs: newMailbox[installTask](0, poke)}
}

// run is the event loop.
func (c *checkpointer) run() {
	for {
		select {
		case <-c.s.stop:
			return
		case t := <-c.tasks:
			t.done <- t.do()
		case <-c.poke:
			for _, t := range c.installs.take() {
				c.install(t)
			}
			if d := c.due(); d.Do {
				_ = c.write(string(d.Reason)) // reported as an event, and tried again
			}
			c.considerDefragment()
			c.s.metrics.database(c.db.Size(), c.db.SizeInUse())
		case <-c.removal.due:
			c.remove()
		}
	}
}

// call runs do on the goroutine.
func (c *checkpointer) call(ctx context.Context, do func() error) error {
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	t := checkpointTask{do: do, done: make(chan error, 1)}
	select {
	case c.tasks <- t:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.s.stop:
		return ErrStopped
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.s.stopped:
		return ErrStopped
	}
}

// due asks the policy.
func (c *checkpointer) due() compact.CheckpointDecision {
	now, size, view := c.s.cfg.Now(), c.s.log.wal.GivenBytes(), c.s.View()
	pending := view.Pending()
	return c.s.cfg.Checkpoints.Decide(compact.CheckpointStats{
		Entries:  view.Index() - c.last.index,
		Rows:     pending.Rows,
		Stale:    pending.Stale,
		WALBytes: size - c.walSize,
		WALRate:  c.growth.look(size, now),
		Age:      now.Sub(c.lastAt),
		Behind:   c.behind.look(view.Compacted(), now),
		Failures: c.failures, SinceFailure: now.Sub(c.failedAt),
		Crowded: c.crowded.Load(), Full: c.s.spaceLow.Load() && c.s.log.wal.Sealed(),
	})
}

// compacted is the last compaction that was seen, and when.
type compacted struct {
	revision mvcc.Revision
	at       time.Time
}

// look takes the compacted revision of now and answers how long ago it came to be.
func (c *compacted) look(revision mvcc.Revision, now time.Time) time.Duration {
	if revision != c.revision {
		*c = compacted{revision, now}
	}
	return now.Sub(c.at)
}

// growth is how fast the WAL grows.
type growth struct {
	size int64 // what the WAL was given
	at   time.Time
	rate int64 // bytes a second, between the last two looks that were growthInterval apart
}

// look takes the size of now and answers the rate.
func (g *growth) look(size int64, now time.Time) int64 {
	if d := now.Sub(g.at); d >= growthInterval {
		g.rate = int64(float64(size-g.size) / d.Seconds())
		g.size, g.at = size, now
	}
	return g.rate
}

// write makes a checkpoint.
func (c *checkpointer) write(reason string) error {
	if err := c.s.Err(); err != nil { // an install may have changed the file and not the state
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	start := c.s.cfg.Now()
	if err := c.dropAhead(); err != nil {
		return c.failed(reason, err)
	}
	got, err := c.capture()
	if err != nil {
		return err
	}
	at, logged := got.state.Index, c.s.log.wal.GivenBytes()
	if at == c.last.index && got.state.Empty() {
		return c.release(got, true)
	}
	var dead int
	batch, err := batchOf(got)
	if err == nil {
		batch.Dead, batch.DeadMax, batch.DeadBytesMax = c.removal.with(batch.Dead), c.s.cfg.Checkpoints.DeadRows, c.removal.bytesMax()
		dead, err = c.put(batch)
	}
	if err != nil {
		_ = c.release(got, false)
		return c.failed(reason, err)
	}
	if err := c.release(got, true); err != nil {
		return err
	}
	c.last = mark{index: at, term: got.state.Term, conf: got.cluster.ConfState()}
	c.lastAt = c.s.cfg.Now()
	took := c.lastAt.Sub(start)
	c.goOn(batch, dead, took)
	c.walSize = logged
	c.burst.Store(logged + c.s.cfg.Checkpoints.BurstBytes)
	if err := c.markLog(); err != nil {
		return c.failed(reason, err)
	}
	c.failures = 0
	c.s.metrics.checkpointed(took)
	c.s.metrics.database(c.db.Size(), c.db.SizeInUse())
	c.s.cfg.OnEvent(CheckpointDone{Reason: reason, Index: at, Puts: got.state.PutCount(), Deletes: dead, Took: took})
	return nil
}

// failed notes that a checkpoint failed. Nothing was written, or nothing will be any more.
func (c *checkpointer) failed(reason string, err error) error {
	if errors.Is(err, ErrStopped) {
		return err
	}
	c.failures, c.failedAt = c.failures+1, c.s.cfg.Now()
	return c.tellFailed(reason, err)
}

// tellFailed is failed for what the next checkpoint need not wait for.
func (c *checkpointer) tellFailed(reason string, err error) error {
	if errors.Is(err, backend.ErrUnsynced) {
		c.s.fail(fmt.Errorf("checkpoint: %w", err))
	}
	c.s.metrics.checkpointFailures.Inc()
	c.s.cfg.OnEvent(CheckpointFailed{Reason: reason, Err: err})
	return fmt.Errorf("checkpoint: %w", err)
}

// commit is the last transaction of a checkpoint, which brings the file to its index, or a part of a removal.
func (c *checkpointer) commit(b backend.Batch) (dead int, err error) {
	start := time.Now()
	dead, err = c.db.Write(b)
	c.commitTook = time.Since(start)
	c.s.metrics.committed(c.commitTook)
	c.s.metrics.rowsCompacted(dead)
	return dead, err
}

// onApply runs do on the apply goroutine and waits for it.
func (c *checkpointer) onApply(do func()) error {
	done := make(chan struct{})
	c.s.apply.inbox.put(applyTask{do: func() { do(); close(done) }})
	select {
	case <-done:
		return nil
	case <-c.s.failed:
		return ErrStopped
	case <-c.s.stop:
		return ErrStopped
	}
}

// capture takes what is to be written. A state that lacks an entry is none to write: the next start applies the entry again.
func (c *checkpointer) capture() (got captured, err error) {
	var lost error
	err = c.onApply(func() {
		if c.s.apply.lost {
			lost = c.s.Err()
			return
		}
		got = captured{state: c.s.apply.state.BeginCheckpoint(), cluster: c.s.apply.cluster}
	})
	return got, cmp.Or(err, lost)
}

func (c *checkpointer) release(got captured, ok bool) error {
	if ok {
		c.crowded.Store(false)
	}
	return c.onApply(func() {
		c.s.apply.state.EndCheckpoint(got.state, ok)
		if ok {
			c.s.apply.unblock()
		}
	})
}

// markLog tells the WAL what bbolt holds, so that it gives back what is not needed any more.
func (c *checkpointer) markLog() error {
	m := c.last
	t := logTask{mark: &m, done: make(chan error, 1)}
	c.s.log.inbox.put(t)
	select {
	case err := <-t.done:
		return err
	case <-c.s.failed: // the log may have ended
		return ErrStopped
	case <-c.s.stop:
		return ErrStopped
	}
}

// batchOf is what bbolt has to write.
func batchOf(got captured) (backend.Batch, error) {
	cp, view := got.state, got.state.View
	b := backend.Batch{
		Index: cp.Index, Term: cp.Term, Hash: view.Hash(),
		Puts: cp.Puts(), Dead: cp.Dead(), LeasesPut: cp.LeasesPut(), LeasesDeleted: cp.LeasesDeleted(), Auth: cp.Auth(),
		CompactScheduled: cp.CompactScheduled, CompactFinished: cp.CompactFinished,
		ClusterVersion: view.ClusterVersion(), Members: make(map[string][]byte),
	}
	var err error
	if b.ConfState, err = json.Marshal(got.cluster.ConfState()); err != nil {
		return b, fmt.Errorf("marshal conf state: %w", err)
	}
	for _, m := range got.cluster.Members() {
		if b.Members[m.ID.String()], err = json.Marshal(m); err != nil {
			return b, fmt.Errorf("marshal member: %w", err)
		}
	}
	for _, id := range got.cluster.Removed() {
		b.MembersRemoved = append(b.MembersRemoved, id.String())
	}
	if d := view.Downgrade(); d != (mvcc.Downgrade{}) {
		if b.Downgrade, err = json.Marshal(DowngradeInfo{TargetVersion: d.Target, Enabled: d.Enabled}); err != nil {
			return b, fmt.Errorf("marshal downgrade: %w", err)
		}
	}
	for _, a := range view.Alarms() {
		row, err := proto.Marshal(a)
		if err != nil {
			return b, fmt.Errorf("marshal alarm: %w", err)
		}
		b.Alarms = append(b.Alarms, row)
	}
	return b, nil
}

// Checkpoint writes the state to bbolt now.
func (s *Store) Checkpoint(ctx context.Context) error {
	return s.checkpoint.call(ctx, func() error { return s.checkpoint.write("request") })
}

// Hash is Maintenance.Hash: a hash of the whole bbolt file's content after a checkpoint made now.
func (s *Store) Hash(ctx context.Context) (hash uint32, err error) {
	c := s.checkpoint
	err = c.call(ctx, func() error {
		if err := c.write("hash"); err != nil {
			return err
		}
		start := time.Now()
		hash, err = c.db.Hash()
		s.metrics.hashed(time.Since(start))
		return err
	})
	return hash, err
}
