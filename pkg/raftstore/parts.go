package raftstore

import (
	"iter"
	"slices"
	"time"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// A checkpoint is written in parts, so that neither the log's fsync nor the processors wait for more than one of them: all rows but the
// last part's are put ahead of the file's state, each part in a transaction of its own, and the last transaction makes them, with all
// else, the state at the new index (I3). A crash before leaves the state at the old index, and rows that mean nothing: the first checkpoint
// behind it deletes them, as does the next attempt behind one that failed.

// put writes the batch. The log, which would take the room on a full disk that this needs to give back more, waits for it.
func (c *checkpointer) put(b backend.Batch) (dead int, err error) {
	c.s.room.Lock()
	defer c.s.room.Unlock()
	if b.Puts, err = c.putAhead(b.Puts); err != nil {
		return 0, err
	}
	return c.commit(b)
}

// putAhead puts rows ahead until the rest is no more than a part, and answers the rest.
func (c *checkpointer) putAhead(rows iter.Seq[*mvcc.Version]) (rest iter.Seq[*mvcc.Version], err error) {
	var part []*mvcc.Version
	var bytes, written int64
	log, limit := c.s.log.wal.GivenBytes(), c.s.cfg.Checkpoints.PartBytes
	for v := range rows {
		if bytes >= limit {
			start := time.Now()
			if err := c.db.PutAhead(part); err != nil {
				return nil, err
			}
			took := time.Since(start)
			c.s.metrics.committed(took)
			written += bytes
			if limit, err = c.pause(took, written, c.s.log.wal.GivenBytes()-log); err != nil {
				return nil, err
			}
			part, bytes = part[:0], 0
		}
		part = append(part, v)
		bytes += v.RowSize()
	}
	return slices.Values(part), nil
}

// pause leaves disk and processors to the writes after a part that took so long. written is what the checkpoint has put so far, and grown
// what the log has grown by meanwhile. It answers how large the next part is. ErrStopped ends the attempt.
func (c *checkpointer) pause(took time.Duration, written, grown int64) (bytes int64, err error) {
	bytes, d := c.s.cfg.Checkpoints.NextPart(compact.PartStats{Took: took, Written: written, Grown: grown,
		Awaited: c.waiting.Load() > 0 || c.installs.len() > 0 || c.crowded.Load(), Pressed: c.s.closing.Load() || c.s.spaceLow.Load()})
	select {
	case <-time.After(d):
		return bytes, nil
	case <-c.s.stop:
		return 0, ErrStopped
	}
}

// dropAhead deletes the rows that a crash, or an attempt that failed, has left ahead of the file's state.
func (c *checkpointer) dropAhead() error {
	more, err := c.db.Ahead()
	for more && err == nil {
		start := time.Now()
		if more, err = c.db.DropAhead(c.s.cfg.Checkpoints.DeadRows); err == nil && more {
			_, err = c.pause(time.Since(start), 0, 0)
		}
	}
	return err
}
