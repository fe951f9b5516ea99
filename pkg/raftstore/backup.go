package raftstore

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
)

// Backup makes a checkpoint now and streams the bbolt file as of it; checkpoints and writes go on meanwhile. size is in bytes, version
// that of the storage schema. The stream holds the file only, without the checksum that etcd's Snapshot call sends behind it.
// The caller has to close rc.
//
// It is read at backupRate at most, and for no more than half of the time, so that the disk has the other half for the log. A reader that
// takes nothing for backupStallMax is cut off. Until rc is closed or at its end, pages that checkpoints replace are not used again: the file
// grows by what they write meanwhile.
func (s *Store) Backup(ctx context.Context) (size int64, version string, rc io.ReadCloser, err error) {
	_, size, rc, err = s.stream(ctx, "backup", newPacer(s.ctx, backupRate))
	return size, backend.StorageVersionOf(s.View().ClusterVersion()), rc, err
}

// errStalled: whoever reads a backup did not go on reading.
var errStalled = errors.New("the backup was not read on")

// stream makes a checkpoint, says what it is of, and gives the bbolt file that holds it. Without a pacer, for another member that cannot do
// without, it goes as fast as it is read.
func (s *Store) stream(ctx context.Context, reason string, p *pacer) (at mark, size int64, rc io.ReadCloser, err error) {
	at, tx, err := s.beginAt(ctx, reason)
	if err != nil {
		return mark{}, 0, nil, err
	}
	size = tx.Size()
	r, w := io.Pipe()
	start := time.Now()
	s.streams.Add(1)
	s.backups.Go(func() {
		defer s.streams.Add(-1)
		err := copyPaced(w, tx.Copy, p)
		tx.Rollback()
		w.CloseWithError(err) // io.EOF if nil
		s.metrics.backedUp(time.Since(start))
	})
	stop := context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	unstop := context.AfterFunc(s.ctx, func() { r.CloseWithError(ErrStopped) })
	return at, size, &backup{PipeReader: r, release: func() { stop(); unstop() }}, nil
}

// beginAt makes a checkpoint, says what it is of, and gives a reader of it. One that nobody waits for any more is ended: it would keep pages
// from being used again, and the file from being closed, for ever.
func (s *Store) beginAt(ctx context.Context, reason string) (mark, *backend.Tx, error) {
	c := s.checkpoint
	var at mark
	var tx *backend.Tx
	var owned atomic.Bool // by who is second: the goroutine of the checkpoint is done with it, or the caller is gone
	err := c.call(ctx, func() (err error) {
		if err := c.write(reason); err != nil {
			return err
		}
		at = c.last
		if tx, err = c.db.Begin(); err == nil && owned.Swap(true) {
			tx.Rollback()
		}
		return err
	})
	if err == nil {
		return at, tx, nil
	}
	if owned.Swap(true) {
		tx.Rollback()
	}
	return mark{}, nil, err
}

// copyPaced runs a copy into a pipe. p is nil if it need not wait.
func copyPaced(w *io.PipeWriter, copy func(io.Writer, func(int, time.Duration) error) (int64, error), p *pacer) error {
	if p == nil {
		_, err := copy(w, func(int, time.Duration) error { return nil })
		return err
	}
	stalled := time.AfterFunc(backupStallMax, func() { w.CloseWithError(errStalled) })
	defer stalled.Stop()
	_, err := copy(w, func(bytes int, read time.Duration) error {
		stalled.Stop()
		err := p.pace(bytes, read)
		stalled.Reset(backupStallMax)
		return err
	})
	return err
}

// pacer makes a copy wait behind each chunk: so long that it stays below the rate, and at least as long as reading the chunk took. Time
// that it lost to a slow reader it does not catch up with.
type pacer struct {
	ctx  context.Context
	rate int64     // bytes per second
	next time.Time // when the chunk behind the last one is due
}

func newPacer(ctx context.Context, rate int64) *pacer { return &pacer{ctx: ctx, rate: rate} }

// pace is called when a chunk was read and written.
func (p *pacer) pace(bytes int, read time.Duration) error {
	now := time.Now()
	p.next = p.next.Add(time.Duration(int64(bytes) * int64(time.Second) / p.rate))
	if rested := now.Add(read); p.next.Before(rested) {
		p.next = rested
	}
	wait := time.NewTimer(p.next.Sub(now))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-p.ctx.Done():
		return ErrStopped
	}
}

// backup ends the goroutine behind it when it is closed.
type backup struct {
	*io.PipeReader
	release func()
}

func (b *backup) Close() error {
	b.release()
	return b.PipeReader.CloseWithError(errors.New("backup closed"))
}
