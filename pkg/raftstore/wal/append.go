package wal

import (
	"fmt"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// Append writes records behind the last one, with one write call, and gives the position of the first. They are not
// durable before the next Sync returns nil. A file system without room gives ErrNoSpace, records of more than
// BatchBytesMax ErrTooLarge; neither changes anything. Any other error is final: each later call gives it again.
func (w *WAL) Append(recs ...Record) (Position, error) {
	var size int64
	for i := range recs {
		if recs[i].Type == TypeReserved {
			return Position{}, ErrReservedType
		}
		size += recordBytes(int64(len(recs[i].Data)))
	}
	return w.append(size, w.packs(len(recs), size), func(e *encoder) {
		for i := range recs {
			e.add(recs[i].Type, w.durable, recs[i].Data)
		}
	})
}

// AppendV is Append for records in pieces.
func (w *WAL) AppendV(recs ...RecordV) (Position, error) {
	var size int64
	for i := range recs {
		if recs[i].Type == TypeReserved {
			return Position{}, ErrReservedType
		}
		var data int64
		for _, piece := range recs[i].Data {
			data += int64(len(piece))
		}
		size += recordBytes(data)
	}
	return w.append(size, w.packs(len(recs), size), func(e *encoder) {
		for i := range recs {
			e.add(recs[i].Type, w.durable, recs[i].Data...)
		}
	})
}

// packs tells whether so many records of so many bytes on disk are packed.
func (w *WAL) packs(records int, size int64) bool {
	return records <= packRecordsMax && size-int64(records)*recordHeaderBytes <= int64(w.o.PackBytes)
}

// append writes what encode adds, size bytes on disk at most, into the current segment or the next.
func (w *WAL) append(size int64, pack bool, encode func(*encoder)) (Position, error) {
	if err := w.usable(); err != nil {
		return Position{}, err
	}
	if size > w.BatchBytesMax() {
		return Position{}, fmt.Errorf("append %d bytes, at most %d: %w", size, w.BatchBytesMax(), ErrTooLarge)
	}
	long := packedFactorMax * w.header.bytes
	if w.reserving.Load() && (w.tail > w.header.bytes/2 || w.given > long/2) {
		_ = w.TryReserve() // SpaceLow keeps the outcome: the caller has to learn of a full disk while there is room in the segment
	}
	if w.tail+size > w.header.bytes-sealBytes {
		if err := w.rotate(); err != nil {
			return Position{}, err
		}
	} else if w.given > long {
		if err := w.rotate(); err != nil && !isNoSpace(err) { // on a full disk it goes on with what room there is
			return Position{}, err
		}
	}
	pos := Position{Segment: w.header.number, Offset: w.tail}
	if size == 0 {
		return pos, nil
	}
	e, window := w.enc, len(w.packer.window)
	if pack && w.header.version >= formatPacked {
		e.packer = &w.packer
	}
	e.reserve(size)
	encode(&e)
	e.packer = nil
	got := int64(len(e.buf) - len(w.enc.buf))
	if got > size {
		panic(fmt.Sprintf("wal: records of %d bytes were encoded to %d", size, got))
	}
	given := size
	size = got
	if err := w.write(e.pages(), size); err != nil {
		w.packer.takeBack(window)
		return Position{}, err
	}
	e.written()
	w.packer.slide()
	w.give(given)
	w.enc = e
	w.tail += size
	w.tailBytes.Store(w.tail)
	w.marked = false
	return pos, nil
}

// write puts records of so many bytes into the file: pages begins with the page of the tail. Of a page that was begun before only the
// blocks are written that the records touch; what follows is zero already. If the disk is full in the middle of it, zeros take the place of what is behind the tail, durably, so that it cannot
// be taken for records later.
func (w *WAL) write(pages []byte, size int64) error {
	began := time.Now()
	block, page := max(w.file.Block(), sectorBytes), w.tail-int64(len(w.enc.buf))
	from, to := w.tail/block*block, page+int64(len(pages))
	if w.tail > page && len(pages) == pageBytes {
		to = roundUp(w.tail+size, block)
	}
	pages = pages[from-page : to-page]
	begun := w.tail - from
	n, err := w.file.WriteAt(pages, from)
	if err == nil {
		w.o.OnWrite(n, time.Since(began))
		return nil
	}
	name := segmentName(w.dir, w.header.number)
	err = noSpaceOr(fmt.Sprintf("write %d bytes to %s at offset %d", len(pages), name, from), err)
	if !isNoSpace(err) {
		return w.fail(err)
	}
	// All of it, as nobody says how far the write came. Where there is no room for the zeros, there was none for the records.
	clear(pages[begun:])
	if _, zerr := w.file.WriteAt(pages, from); zerr != nil && !vfs.IsNoSpace(zerr) {
		return w.fail(fmt.Errorf("undo a write that found the disk full: %w", zerr))
	}
	if serr := w.syncFile(); serr != nil {
		return serr
	}
	return err
}

// Sync makes all records durable, with one fdatasync, or none if there is nothing new. An error is final: what is on disk
// is unknown then, and each later call gives the error again.
func (w *WAL) Sync() error {
	if err := w.usable(); err != nil {
		return err
	}
	if w.durable == w.enc.number {
		return nil
	}
	return w.syncFile()
}

func (w *WAL) syncFile() error {
	began := time.Now()
	if err := w.file.Sync(); err != nil {
		return w.fail(fmt.Errorf("sync %s: %w", segmentName(w.dir, w.header.number), err))
	}
	w.o.OnFsync(time.Since(began))
	w.durable = w.enc.number
	return nil
}

// mark puts the mark behind the last record which shows that it was durable. It is left out where there is no room.
func (w *WAL) mark() error {
	size := recordBytes(0)
	if w.marked || w.tail+size > w.header.bytes-sealBytes {
		return nil
	}
	_, err := w.append(size, false, func(e *encoder) { e.add(TypeReserved, w.durable) })
	if isNoSpace(err) {
		return nil
	}
	if err == nil {
		err = w.Sync()
	}
	w.marked = err == nil
	return err
}
