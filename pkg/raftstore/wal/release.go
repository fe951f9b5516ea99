package wal

import (
	"fmt"
	"path"
)

// Release gives back the segments which lie wholly before a position: one becomes the spare, unless there is a recycled
// one already, and the others are removed. The current segment always stays. An error leaves the rest as they were; a
// later call tries again.
func (w *WAL) Release(before Position) error {
	for {
		done, err := w.releaseOldest(before)
		if done || err != nil {
			return err
		}
	}
}

// releaseOldest is one step of Release (doc.go, write path 4). It takes the lock by itself, so that a rotation waits for
// one step at most. The directory is synced at each step: were two names to go at once, a crash could keep the older one
// and lose the newer.
func (w *WAL) releaseOldest(before Position) (done bool, err error) {
	w.dirMu.Lock()
	defer w.dirMu.Unlock()
	if w.dirErr != nil {
		return true, w.dirErr
	}
	if len(w.segments) <= 1 || w.segments[0].number >= before.Segment {
		return true, nil
	}
	oldest := w.segments[0]
	name := segmentName(w.dir, oldest.number)
	if recycle := oldest.bytes == w.o.SegmentBytes && (!w.spare.ready || w.spare.zeroed); recycle {
		if err := w.fs.Rename(name, path.Join(w.dir, spareName)); err != nil {
			return true, fmt.Errorf("recycle segment: %w", err)
		}
		w.spare = spareState{ready: true}
		w.spaceLow.Store(false)
	} else if err := w.fs.Remove(name); err != nil {
		return true, fmt.Errorf("remove segment: %w", err)
	}
	w.segments = w.segments[1:]
	w.fullBytes.Add(-oldest.bytes)
	return false, w.syncDir()
}
