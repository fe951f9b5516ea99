package wal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// WAL is an open log. Append, AppendV, Sync and Close belong to the appender, one goroutine at a time; the other methods may be
// called from any.
type WAL struct {
	fs  vfs.FS
	dir string
	o   Options

	// The appender's own.
	file    vfs.File // the current segment
	header  segmentHeader
	tail    int64   // where the next record goes
	enc     encoder // the chain behind the last record; its buffer holds what the tail's page begins with, up to the tail
	packer  packer  // the window of the current segment
	given   int64   // bytes of the current segment's records if none was packed
	durable uint64  // number of the last record known to be durable
	marked  bool    // the last record is the mark of Close
	failed  error   // sticky: a write or fsync failed, nothing is known about what is on disk
	closed  bool

	// Everything that changes names in the directory, under dirMu, which is held across those calls.
	dirMu    sync.Mutex
	segments []segment // oldest first, the last is the current one
	spare    spareState
	dirErr   error // sticky: SyncDir failed

	spaceLow  atomic.Bool
	reserving atomic.Bool  // the reserve goroutine was asked for a spare, and it is not known what came of it
	fullBytes atomic.Int64 // sum of the sizes of all segments but the current one
	tailBytes atomic.Int64 // tail
	allGiven  atomic.Int64 // see GivenBytes

	kick    chan struct{} // asks the reserve goroutine for a spare; nil with ReserveInline
	stop    chan struct{}
	stopped chan struct{}
}

type segment struct {
	number uint64
	bytes  int64
}

// spareState says whether the spare segment is there.
type spareState struct {
	ready  bool
	zeroed bool // it is known to be all zeros
}

// Open opens the log in dir, which it creates if it is not there, and gives each record to replay (nil: to nobody), oldest
// first. A torn tail is cut. When Open returns, all that replay saw is durable.
//
// The error is a *CorruptError for what a crash cannot have left, ErrNewerFormat for a log of a later version, ErrNoSpace
// if there is no room for the first segment, what replay returned, or one of the file system.
func Open(fs vfs.FS, dir string, o Options, replay func(Position, Record) error) (*WAL, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	if replay == nil {
		replay = func(Position, Record) error { return nil }
	}
	w := &WAL{fs: fs, dir: dir, o: o}
	if err := w.prepareDir(); err != nil {
		return nil, err
	}
	numbers, err := listSegments(fs, dir)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		err = w.rotate()
	} else {
		err = w.recover(numbers, replay)
	}
	if err != nil {
		if w.file != nil {
			w.file.Close()
		}
		return nil, err
	}
	w.startReserve()
	return w, nil
}

// Close marks the log as complete, makes it durable, and ends the reserve goroutine. The log is closed in any case; an
// error means that what was not synced before may be lost.
func (w *WAL) Close() error {
	if w.closed {
		return ErrClosed
	}
	err := w.Sync()
	if err == nil {
		err = w.mark()
	}
	w.closed = true
	w.stopReserve()
	if cerr := w.file.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close segment: %w", cerr)
	}
	return err
}

// Size is how many bytes of the segments are in use, their headers included and the spare left out. It falls when
// Release gives segments back.
func (w *WAL) Size() int64 { return w.fullBytes.Load() + w.tailBytes.Load() }

// Sealed tells whether there is a segment beside the current one, which Release may give back.
func (w *WAL) Sealed() bool { return w.fullBytes.Load() > 0 }

// GivenBytes is how many bytes the records that Open gave to replay, and those that were given to Append since, would take if none was packed.
// It never falls: the difference of two looks is what came in between.
func (w *WAL) GivenBytes() int64 { return w.allGiven.Load() }

// give counts records of so many bytes, in the current segment.
func (w *WAL) give(bytes int64) {
	w.given += bytes
	w.allGiven.Add(bytes)
}

// BatchBytesMax is how many bytes the records of one Append may take on disk: half a segment. A record takes 24 bytes
// and its data, rounded up to a multiple of 8. What Options.Header gives has the same bound, less one page.
func (w *WAL) BatchBytesMax() int64 { return w.o.SegmentBytes / 2 }

// fail makes the error of a write or fsync sticky.
func (w *WAL) fail(err error) error {
	w.failed = err
	return err
}

// usable is nil while the appender may go on.
func (w *WAL) usable() error {
	if w.closed {
		return ErrClosed
	}
	if w.failed != nil {
		return fmt.Errorf("write-ahead log failed before: %w", w.failed)
	}
	return nil
}

// noSpaceOr gives ErrNoSpace for a full disk and the error itself for everything else.
func noSpaceOr(what string, err error) error {
	if vfs.IsNoSpace(err) {
		return fmt.Errorf("%s: %w (%w)", what, ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func isNoSpace(err error) bool { return errors.Is(err, ErrNoSpace) || vfs.IsNoSpace(err) }
