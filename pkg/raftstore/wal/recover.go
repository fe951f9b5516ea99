package wal

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// prepareDir makes the directory, removes a spare that was not finished, and finds the one that was. Names seen from here
// on are durable.
func (w *WAL) prepareDir() error {
	if err := w.fs.MkdirAll(w.dir); err != nil {
		return fmt.Errorf("make directory of the write-ahead log: %w", err)
	}
	temp := path.Join(w.dir, spareTempName)
	if err := w.fs.Remove(temp); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("remove unfinished spare segment: %w", err)
	}
	spare := path.Join(w.dir, spareName)
	switch info, err := w.fs.Stat(spare); {
	case errors.Is(err, iofs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("look for the spare segment: %w", err)
	case info.Size == w.o.SegmentBytes:
		w.spare = spareState{ready: true} // what is in it is unknown
	default: // made with another segment size
		if err := w.fs.Remove(spare); err != nil {
			return fmt.Errorf("remove spare segment of another size: %w", err)
		}
	}
	return w.syncDir()
}

// recover replays the segments, cuts a torn tail and opens the last segment for appending.
func (w *WAL) recover(numbers []uint64, replay func(Position, Record) error) error {
	given := make(map[uint64]int64) // by segment
	last, t, err := walk(w.fs, w.dir, numbers, w.fs.Open, func(pos Position, rec Record) error {
		given[pos.Segment] += recordBytes(int64(len(rec.Data)))
		return replay(pos, rec)
	})
	if err != nil {
		return err
	}
	w.file = last.file // closed by Open from here on if something fails
	if err := last.rewrite(); err != nil {
		return err
	}
	if err := t.erase(); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", last.name, err)
	}
	for _, n := range numbers {
		info, err := w.fs.Stat(segmentName(w.dir, n))
		if err != nil {
			return fmt.Errorf("size of segment: %w", err)
		}
		w.segments = append(w.segments, segment{n, info.Size})
		w.fullBytes.Add(info.Size)
		w.allGiven.Add(given[n])
	}
	w.given = given[last.header.number]
	w.fullBytes.Add(-last.header.bytes)
	w.header = last.header
	w.tail = last.at
	w.tailBytes.Store(w.tail)
	w.enc = encoder{seed: last.seed, chain: last.chain, number: last.number}
	w.packer.seed(last.unpacker.window)
	w.durable = last.number
	w.marked = last.marked
	return w.reopen(last)
}

// reopen goes on in the last segment, which was read through the page cache, past it. What the tail's page begins with is read
// once more: what follows it was cut.
func (w *WAL) reopen(last *reader) error {
	w.enc.reserve(pageBytes)
	w.enc.buf = w.enc.buf[:w.tail%pageBytes]
	if err := readFull(last.file, w.enc.buf, w.tail-w.tail%pageBytes); err != nil {
		return fmt.Errorf("read the last page of %s: %w", last.name, err)
	}
	file, err := w.fs.OpenDirect(last.name)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	last.file.Close() // synced before
	w.file = file
	return nil
}

// rewrite writes the records again which nothing shows to have been durable, as they are. They may be in the page cache
// only, and after an fsync that failed in an earlier process the kernel may believe them written; a write of its own
// makes the next fsync mean them.
func (r *reader) rewrite() error {
	for at := r.attestedEnd; at < r.at; {
		b, err := r.load(at, min(r.at-at, readBytes))
		if err != nil {
			return err
		}
		if _, err := r.file.WriteAt(b, at); err != nil {
			return noSpaceOr("write the end of "+r.name+" again", err)
		}
		at += int64(len(b))
	}
	return nil
}

// Scan gives each record of the log in dir to fn, oldest first, without changing anything: a torn tail is where it ends,
// silently. Errors are those of Open.
func Scan(fs vfs.FS, dir string, fn func(Position, Record) error) error {
	numbers, err := listSegments(fs, dir)
	if err != nil || len(numbers) == 0 {
		return err
	}
	last, _, err := walk(fs, dir, numbers, fs.OpenReadOnly, fn)
	if err != nil {
		return err
	}
	return last.file.Close()
}

// walk reads all segments. It leaves the last one open, with what stands behind its last record.
func walk(fs vfs.FS, dir string, numbers []uint64, openLast func(string) (vfs.File, error),
	fn func(Position, Record) error) (last *reader, t *tail, err error) {
	for i, number := range numbers {
		open := fs.OpenReadOnly
		if i == len(numbers)-1 {
			open = openLast
		}
		file, err := open(segmentName(dir, number))
		if err != nil {
			return nil, nil, fmt.Errorf("open segment: %w", err)
		}
		r, err := openReader(file, dir, number)
		if err == nil && last != nil {
			err = follows(last, r)
		}
		if err == nil {
			t, err = r.walk(i == len(numbers)-1, fn)
		}
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		if i < len(numbers)-1 {
			file.Close() // only read
		}
		last = r
	}
	return last, t, nil
}

// walk gives the records of one segment to fn. Of the last one it says what stands behind the last record.
func (r *reader) walk(isLast bool, fn func(Position, Record) error) (*tail, error) {
	for {
		pos := Position{Segment: r.header.number, Offset: r.at}
		chain, number := r.chain, r.number
		rec, reason, err := r.next()
		if err != nil {
			return nil, err
		}
		if reason != "" {
			r.reason = reason
			if isLast {
				return findTail(r, reason)
			}
			return nil, nil
		}
		if rec.Type == TypeReserved && bytes.Equal(rec.Data, sealPayload) {
			if isLast {
				return nil, &CorruptError{File: segmentName(path.Dir(r.name), r.header.number+1), Reason: "segment is missing"}
			}
			r.chain, r.number, r.reason = chain, number, "segment is sealed"
			return nil, nil
		}
		r.marked = rec.Type == TypeReserved
		if r.marked {
			continue
		}
		if err := fn(pos, rec); err != nil {
			return nil, fmt.Errorf("replay record at %s: %w", pos, err)
		}
	}
}

// follows checks that a segment begins where the one before it ended; if not, the damage is there where that one's good
// records end.
func follows(before, r *reader) error {
	want := r.header.firstRecord - 1
	if before.number == want && before.chain == r.header.prevChain {
		return nil
	}
	if before.number < want {
		return before.corrupt(fmt.Sprintf("%s, and the next segment begins with record %d, not %d",
			before.reason, want+1, before.number+1))
	}
	return r.corrupt(fmt.Sprintf("segment does not continue the one before it, which ends with record %d, chain %08x",
		before.number, before.chain))
}
