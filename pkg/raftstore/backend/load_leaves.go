package backend

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

const (
	// loadRunBytes is how much of leaves that lie one behind the other is read at a time.
	loadRunBytes = 256 << 10
	// loadGapBytes is how far the next of them may be from the one before: that is in between, or was when both were written.
	loadGapBytes = 64 << 10
	// loadAheadBytes is how much of the file the kernel is asked to read ahead of each part: enough for the queue of a disk.
	loadAheadBytes = 4 << 20
)

// leafRun is leaves that lie one behind the other, as a part of the file.
type leafRun struct {
	extent
	leaves []leafRef
}

// loadBuffer is a part of the file that was read. It may be used again once so many rows, or bytes of them, were yielded.
type loadBuffer struct {
	b           []byte
	before      int // rows that had been yielded when it was read
	rows, bytes int
}

// leaves reads the leaves below one branch, and yields their rows.
func (s *scan) leaves(refs []leafRef) (more bool, err error) {
	for _, leaf := range refs {
		if leaf.id < 2 || leaf.id >= uint64(s.finder.fileBytes/s.finder.pageBytes) {
			return false, s.finder.wrong(-1, "page %d is not within the %d pages", leaf.id, s.finder.fileBytes/s.finder.pageBytes)
		}
	}
	runs := s.runs(refs)
	told, ahead := 0, int64(0)
	for i, run := range runs {
		for ; told < len(runs) && (told <= i || ahead < loadAheadBytes); told++ {
			s.finder.advise(runs[told].at, runs[told].end)
			ahead += runs[told].end - runs[told].at
		}
		ahead -= run.end - run.at
		buf, err := s.readBuffer(run.extent)
		if err != nil {
			return false, err
		}
		for _, leaf := range run.leaves {
			if more, err := s.leaf(leaf, run.extent, buf); err != nil || !more {
				return false, err
			}
		}
		s.release(buf)
	}
	return true, nil
}

// runs puts leaves together that lie one behind the other.
func (s *scan) runs(refs []leafRef) (runs []leafRun) {
	page := s.finder.pageBytes
	follows := func(i int) bool { // the one before, at once
		return refs[i].id > refs[i-1].id && (refs[i].id-refs[i-1].id)*uint64(page) <= loadGapBytes
	}
	for i, leaf := range refs {
		at := int64(leaf.id) * page
		end := min(at+page, s.finder.fileBytes)
		if i+1 < len(refs) && follows(i+1) {
			end = int64(refs[i+1].id) * page // it may be longer than one page
		}
		if i > 0 && follows(i) {
			if last := &runs[len(runs)-1]; end-last.at <= loadRunBytes {
				last.end, last.leaves = end, refs[i-len(last.leaves):i+1]
				continue
			}
		}
		runs = append(runs, leafRun{extent{at, end}, refs[i : i+1]})
	}
	return runs
}

// leaf yields the rows of a leaf that was read with its run.
func (s *scan) leaf(ref leafRef, run extent, buf *loadBuffer) (more bool, err error) {
	at := int64(ref.id) * s.finder.pageBytes
	b := buf.b[at-run.at:]
	bytes := (int64(binary.LittleEndian.Uint32(b[12:])) + 1) * s.finder.pageBytes
	count, flags := int64(binary.LittleEndian.Uint16(b[10:])), binary.LittleEndian.Uint16(b[8:])
	if got := binary.LittleEndian.Uint64(b); got != ref.id || flags != flagLeaf || pageHeaderBytes+count*elementBytes > bytes {
		return false, s.finder.wrong(at, "page %d says it is page %d with flags %#x and %d elements, in the place of a leaf", ref.id, got, flags, count)
	}
	if ref.own && s.pages != nil {
		if at, reason := s.pages.claim(ref.id, uint64(bytes/s.finder.pageBytes-1)); reason != "" {
			return false, s.finder.wrong(at, "%s", reason)
		}
	}
	if at+bytes > s.finder.fileBytes {
		return false, s.finder.wrong(at, "page %d has %d bytes", ref.id, bytes)
	}
	for _, end := range []func() int64{
		func() int64 { return pageHeaderBytes + count*elementBytes },
		func() int64 { return elementsEnd(b) }, // not bytes: what says how long a page is may be damaged
	} {
		if n := end(); n > bytes {
			return false, s.finder.wrong(at, "an element of the leaf page at %d lies outside of it", at)
		} else if n > int64(len(b)) {
			long, err := s.readBuffer(extent{at, at + n})
			if err != nil {
				return false, err
			}
			defer s.release(long)
			b = long.b
		}
	}
	for i := range count {
		e := pageHeaderBytes + i*elementBytes
		from := e + int64(binary.LittleEndian.Uint32(b[e+4:]))
		ksize, vsize := int64(binary.LittleEndian.Uint32(b[e+8:])), int64(binary.LittleEndian.Uint32(b[e+12:]))
		if flags := binary.LittleEndian.Uint32(b[e:]); flags != 0 || from < pageHeaderBytes+count*elementBytes || from+ksize+vsize > bytes {
			return false, s.finder.wrong(at+e, "an element of the leaf page at %d has flags %#x, or lies outside of it", at, flags)
		}
		k, v := b[from:from+ksize:from+ksize], b[from+ksize:from+ksize+vsize:from+ksize+vsize]
		if more, err := s.row(k, v, at+from); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// readBuffer reads a part of the file.
func (s *scan) readBuffer(e extent) (*loadBuffer, error) {
	n := int(e.end - e.at)
	i := slices.IndexFunc(s.buffers, func(f *loadBuffer) bool {
		return cap(f.b) >= n && (s.rows >= f.rows || s.bytes >= f.bytes)
	})
	if i < 0 {
		i = slices.IndexFunc(s.buffers, func(f *loadBuffer) bool { return s.rows >= f.rows || s.bytes >= f.bytes })
		if i < 0 {
			i = len(s.buffers)
			s.buffers = append(s.buffers, nil)
		}
		s.buffers[i] = &loadBuffer{b: make([]byte, max(n, loadRunBytes))}
	}
	f := s.buffers[i]
	f.b, f.before, f.rows, f.bytes = f.b[:n], s.rows, math.MaxInt, math.MaxInt
	if _, err := s.finder.file.ReadAt(f.b, e.at); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, e.at, err)
	}
	return f, nil
}

// release lets a buffer be used again when its rows are not needed any more: at once if none was yielded, as all of them are ahead.
func (s *scan) release(f *loadBuffer) {
	if s.rows == f.before {
		f.rows, f.bytes = s.rows, s.bytes
		return
	}
	f.rows, f.bytes = s.rows+mvcc.LoadBatchRows, s.bytes+mvcc.LoadBatchBytes
}
