package wal

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
)

// SpaceLow tells that there is no spare segment because the last attempt to make one failed. The current segment still
// takes records; the caller should refuse what makes the data grow until it is false again.
func (w *WAL) SpaceLow() bool { return w.spaceLow.Load() }

// TryReserve makes the spare segment if there is none, and returns nil if there is one now. It is for a tick: it may wait
// for the reserve goroutine, and then for one preallocation and one fsync.
func (w *WAL) TryReserve() error {
	w.dirMu.Lock()
	defer w.dirMu.Unlock()
	return w.reserve()
}

// reserve makes the spare if there is none (doc.go, write path 3), under dirMu.
func (w *WAL) reserve() error {
	if w.spare.ready {
		return nil
	}
	if w.dirErr != nil {
		return w.dirErr
	}
	err := w.makeSpare()
	w.spaceLow.Store(err != nil)
	w.reserving.Store(false)
	if err != nil {
		return noSpaceOr("make a spare segment", err)
	}
	w.spare = spareState{ready: true, zeroed: true}
	return nil
}

func (w *WAL) makeSpare() error {
	temp := path.Join(w.dir, spareTempName)
	file, err := w.fs.Create(temp)
	if err != nil {
		return err
	}
	err = file.Preallocate(w.o.SegmentBytes)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = w.fs.Rename(temp, path.Join(w.dir, spareName))
	}
	if err != nil {
		if rerr := w.fs.Remove(temp); rerr != nil && !errors.Is(rerr, iofs.ErrNotExist) {
			err = fmt.Errorf("%w, and remove it: %w", err, rerr)
		}
		return err
	}
	return w.syncDir()
}

// startReserve starts the reserve goroutine, which owns nothing: it takes dirMu, makes the spare, and waits to be asked
// again. Whether it succeeds shows in SpaceLow.
func (w *WAL) startReserve() {
	if w.o.ReserveInline {
		_ = w.TryReserve() // SpaceLow keeps the outcome
		return
	}
	w.kick, w.stop, w.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	w.reserving.Store(true)
	w.kick <- struct{}{}
	go func() {
		defer close(w.stopped)
		for {
			select {
			case <-w.stop:
				return
			case <-w.kick:
				_ = w.TryReserve() // SpaceLow keeps the outcome
			}
		}
	}()
}

// wantReserve asks for a spare, under dirMu.
func (w *WAL) wantReserve() {
	if w.o.ReserveInline {
		_ = w.reserve() // SpaceLow keeps the outcome
		return
	}
	w.reserving.Store(true)
	select {
	case w.kick <- struct{}{}:
	default: // asked already, or not started yet
	}
}

func (w *WAL) stopReserve() {
	if w.stop != nil {
		close(w.stop)
		<-w.stopped
	}
}
