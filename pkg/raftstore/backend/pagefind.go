package backend

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

const (
	// adviseBytesMax is what the kernel is asked to read in one call: of more, it may read no more than the readahead of the disk, which is
	// 128 KiB unless somebody has set it.
	adviseBytesMax = 128 << 10
	// adviseGapBytes is what is read along with what is on both sides of it: less than another request costs.
	adviseGapBytes = 16 << 10
	// leafHintBytes bounds what is read of a leaf before its header says how long it is.
	leafHintBytes = 64 << 10
	rowKeyBytes   = 17
)

// pageFinder finds rows of one bucket by their pages, which it reads as pageReader does, past the mapping. It holds the page of each level
// that it read last: rows that are near each other cost one read of the file each, or none.
//
// It belongs to an open Tx, and so needs no lock: bbolt never writes to a page that a transaction can reach which is open. A page that a
// later transaction has changed is another page of the file, and the one before is reused only once no reader that began before is left;
// pages of a file that was replaced stay until its last reader has ended (file.retire). So what has been read of a page stays true for as
// long as the Tx is open, and no longer.
type pageFinder struct {
	file      *os.File
	path      string // what the file is called by now
	pageBytes int64
	fileBytes int64 // what the Tx can reach
	root      uint64
	depth     int        // how many branches are above each leaf; -1: not known yet
	branches  []heldPage // by depth
	leaf      heldPage
	small     [rowKeyBytes + 1]byte
	extents   []extent
}

// heldPage is a page, or its first part. id 0 is none.
type heldPage struct {
	id    uint64
	b     []byte
	bytes int64 // with its overflow
}

// leafPlace is a leaf that was not read.
type leafPlace struct {
	id    uint64
	pages int64  // how long it may be; 0: not known
	first bool   // the row is the first one of it
	below []byte // its keys are below this one; nil: not known. Valid until other pages are read
}

// extent is a part of the file.
type extent struct{ at, end int64 }

// begin has it find rows of another Tx.
func (f *pageFinder) begin(path string, tx *Tx, root uint64) {
	f.file, f.path, f.pageBytes, f.fileBytes = tx.file.random, path, int64(tx.DB().Info().PageSize), tx.Size()
	f.restart(root)
}

// restart forgets what it holds.
func (f *pageFinder) restart(root uint64) {
	f.root, f.depth = root, -1
	f.leaf.id = 0
	for i := range f.branches {
		f.branches[i].id = 0
	}
}

func (f *pageFinder) wrong(at int64, format string, args ...any) error {
	return &CorruptError{File: f.path, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// read reads the first pages of a page, as many as there are, into p.
func (f *pageFinder) read(p *heldPage, id uint64, pages int64) error {
	p.id = 0
	if id < 2 || id >= uint64(f.fileBytes/f.pageBytes) {
		return f.wrong(-1, "page %d is not within the %d pages", id, f.fileBytes/f.pageBytes)
	}
	at := int64(id) * f.pageBytes
	n := min(max(pages, 1)*f.pageBytes, f.fileBytes-at)
	p.b = slices.Grow(p.b[:0], int(n))[:n]
	if got, err := f.file.ReadAt(p.b, at); int64(got) < f.pageBytes {
		return fmt.Errorf("read page %d: %w", id, err)
	} else if p.b = p.b[:got]; err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	if got := binary.LittleEndian.Uint64(p.b); got != id {
		return f.wrong(at, "page %d says it is page %d", id, got)
	}
	p.bytes = (int64(binary.LittleEndian.Uint32(p.b[12:])) + 1) * f.pageBytes
	if p.bytes > f.fileBytes-at || pageHeaderBytes+int64(p.count())*elementBytes > p.bytes {
		return f.wrong(at, "page %d has %d elements in %d bytes", id, p.count(), p.bytes)
	}
	if p.flags() == flagBranch && p.bytes != f.pageBytes { // keys of rows are short
		return f.wrong(at, "branch page %d has %d bytes", id, p.bytes)
	}
	p.b = p.b[:min(int64(len(p.b)), p.bytes)]
	if from, n := int64(len(p.b)), pageHeaderBytes+int64(p.count())*elementBytes; n > from {
		p.b = slices.Grow(p.b, int(n-from))[:n]
		if _, err := f.file.ReadAt(p.b[from:], at+from); err != nil {
			return fmt.Errorf("read page %d: %w", id, err)
		}
	}
	p.id = id
	return nil
}

func (p *heldPage) flags() uint16        { return binary.LittleEndian.Uint16(p.b[8:]) }
func (p *heldPage) count() int           { return int(binary.LittleEndian.Uint16(p.b[10:])) }
func (p *heldPage) element(i int) []byte { return p.b[pageHeaderBytes+i*elementBytes:][:elementBytes] }

// branchKey is the lowest key below a child of a branch, nil if it lies outside of the page.
func (p *heldPage) branchKey(i int) []byte {
	e := p.element(i)
	from := int64(pageHeaderBytes+i*elementBytes) + int64(binary.LittleEndian.Uint32(e))
	to := from + int64(binary.LittleEndian.Uint32(e[4:]))
	if to > int64(len(p.b)) {
		return nil
	}
	return p.b[from:to]
}

func (p *heldPage) child(i int) uint64 { return binary.LittleEndian.Uint64(p.element(i)[8:]) }

// descend answers the leaf that a key is in, if it is anywhere. It reads branches, and a leaf only if it does not know yet how deep the
// leaves are: all of them are at the same depth.
func (f *pageFinder) descend(key []byte) (leafPlace, error) {
	place := leafPlace{id: f.root}
	for depth := 0; ; depth++ {
		if depth == f.depth {
			return place, nil
		}
		if depth > pageDepthMax {
			return place, f.wrong(int64(place.id)*f.pageBytes, "pages are nested %d deep", depth)
		}
		if depth == len(f.branches) {
			f.branches = append(f.branches, heldPage{})
		}
		p := &f.branches[depth]
		if p.id != place.id {
			if err := f.read(p, place.id, 1); err != nil {
				return place, err
			}
		}
		switch flags := p.flags(); {
		case flags == flagLeaf && f.depth < 0:
			f.depth, p.id = depth, 0
			return place, nil
		case flags != flagBranch || p.count() == 0:
			return place, f.wrong(int64(place.id)*f.pageBytes, "page %d has flags %#x and %d elements above the leaves", place.id, flags, p.count())
		}
		i := max(sort.Search(p.count(), func(i int) bool { return bytes.Compare(p.branchKey(i), key) > 0 })-1, 0)
		place = leafPlace{id: p.child(i), first: bytes.Equal(p.branchKey(i), key)}
		// Leaves that were written together lie one behind the other, so the next one says how long this one is.
		if i+1 < p.count() {
			place.below = p.branchKey(i + 1)
			if next := p.child(i + 1); next > place.id && (next-place.id)*uint64(f.pageBytes) <= leafHintBytes {
				place.pages = int64(next - place.id)
			}
		}
	}
}

// append appends the value of a row; false: there is none.
func (f *pageFinder) append(dst, key []byte) (_ []byte, found bool, err error) {
	place, err := f.descend(key)
	if err != nil {
		return dst, false, err
	}
	p := &f.leaf
	if p.id != place.id {
		if err := f.read(p, place.id, place.pages); err != nil {
			return dst, false, err
		}
	}
	at := int64(p.id) * f.pageBytes
	if p.flags() != flagLeaf {
		return dst, false, f.wrong(at, "page %d has flags %#x in the place of a leaf", p.id, p.flags())
	}
	var ksize, vsize, from int64
	i, found := sort.Find(p.count(), func(i int) int {
		if err != nil {
			return 0
		}
		e := p.element(i)
		from = pageHeaderBytes + int64(i)*elementBytes + int64(binary.LittleEndian.Uint32(e[4:]))
		ksize, vsize = int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
		if from+ksize+vsize > p.bytes || ksize > int64(len(f.small)) {
			err = f.wrong(at+pageHeaderBytes+int64(i)*elementBytes, "an element of the leaf page at %d lies outside of it", at)
			return 0
		}
		got := f.small[:0]
		if got, err = f.span(got, from, ksize); err != nil {
			return 0
		}
		return bytes.Compare(key, got)
	})
	if err != nil || !found {
		return dst, false, err
	}
	e := p.element(i)
	from = pageHeaderBytes + int64(i)*elementBytes + int64(binary.LittleEndian.Uint32(e[4:]))
	ksize, vsize = int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
	dst, err = f.span(dst, from+ksize, vsize)
	return dst, err == nil, err
}

// appendInline is append for a bucket whose only leaf is part of another page.
func (f *pageFinder) appendInline(dst, leaf, key []byte) (_ []byte, found bool, err error) {
	if len(leaf) < pageHeaderBytes {
		return dst, false, f.wrong(-1, "inline bucket of %d bytes", len(leaf))
	}
	count := int(binary.LittleEndian.Uint16(leaf[10:]))
	for e := pageHeaderBytes; count > 0 && e+elementBytes <= len(leaf); e, count = e+elementBytes, count-1 {
		from := int64(e) + int64(binary.LittleEndian.Uint32(leaf[e+4:]))
		value := from + int64(binary.LittleEndian.Uint32(leaf[e+8:]))
		end := value + int64(binary.LittleEndian.Uint32(leaf[e+12:]))
		if end > int64(len(leaf)) {
			return dst, false, f.wrong(-1, "an element of an inline leaf lies outside of it")
		}
		if bytes.Equal(leaf[from:value], key) {
			return append(dst, leaf[value:end]...), true, nil
		}
	}
	return dst, false, nil
}

// span appends a part of the leaf that is held. What of it was not read is read to where it is to be.
func (f *pageFinder) span(dst []byte, from, n int64) ([]byte, error) {
	p := &f.leaf
	held := max(min(n, int64(len(p.b))-from), 0)
	if held > 0 {
		dst = append(dst, p.b[from:from+held]...)
	}
	if held == n {
		return dst, nil
	}
	old := len(dst)
	dst = slices.Grow(dst, int(n-held))[:old+int(n-held)]
	if _, err := f.file.ReadAt(dst[old:], int64(p.id)*f.pageBytes+from+held); err != nil {
		return dst[:old-int(held)], fmt.Errorf("read page %d: %w", p.id, err)
	}
	return dst, nil
}

// ahead has the kernel begin to read the leaves of some rows, those that are near each other in one piece. The rows are put into the order
// of revisions, which is that of the leaves. To know where the leaves are, it reads branches.
func (f *pageFinder) ahead(rows []mvcc.RowAhead) error {
	slices.SortFunc(rows, func(a, b mvcc.RowAhead) int { return a.Row.Compare(b.Row) })
	f.extents = f.extents[:0]
	key := make([]byte, 0, rowKeyBytes+1)
	for _, r := range rows {
		key = r.Row.Append(key[:0])
		place, err := f.descend(key)
		if err != nil {
			return err
		}
		at := int64(place.id) * f.pageBytes
		f.extents = append(f.extents, extent{at, min(at+f.needed(place, int64(r.Bytes)), f.fileBytes)})
	}
	slices.SortFunc(f.extents, func(a, b extent) int { return cmp.Compare(a.at, b.at) })
	for i := 0; i < len(f.extents); {
		at, end := f.extents[i].at, f.extents[i].end
		for i++; i < len(f.extents) && f.extents[i].at <= end+adviseGapBytes; i++ {
			end = max(end, f.extents[i].end)
		}
		f.advise(at, end)
	}
	return nil
}

// advise has the kernel begin to read a part of the file.
func (f *pageFinder) advise(at, end int64) {
	for ; at < end; at += adviseBytesMax {
		willNeed(f.file, at, min(end-at, adviseBytesMax))
	}
}

// leafRef is a leaf of bucket key that was not read.
type leafRef struct {
	id  uint64
	own bool // its lowest key is in the range that was asked for, not before it
}

// leaves gives the leaves that the rows in [from, to) are in, in their order: those below one branch at a time, until visit answers false.
// nil is the first key, or behind the last one.
func (f *pageFinder) leaves(from, to []byte, visit func([]leafRef) (more bool, err error)) error {
	if _, err := f.descend(from); err != nil { // to know how deep they are
		return err
	}
	if f.depth == 0 {
		_, err := visit([]leafRef{{f.root, from == nil}})
		return err
	}
	_, err := f.below(f.root, 0, from, to, visit)
	return err
}

func (f *pageFinder) below(id uint64, depth int, from, to []byte, visit func([]leafRef) (more bool, err error)) (more bool, err error) {
	p := &f.branches[depth]
	if p.id != id {
		if err := f.read(p, id, 1); err != nil {
			return false, err
		}
	}
	count := p.count()
	if p.flags() != flagBranch || count == 0 {
		return false, f.wrong(int64(id)*f.pageBytes, "page %d has flags %#x and %d elements above the leaves", id, p.flags(), count)
	}
	first := max(sort.Search(count, func(i int) bool { return bytes.Compare(p.branchKey(i), from) > 0 })-1, 0)
	end := count
	if to != nil {
		end = sort.Search(count, func(i int) bool { return bytes.Compare(p.branchKey(i), to) >= 0 })
	}
	if depth+1 < f.depth {
		more = true
		for i := first; i < end && more && err == nil; i++ {
			more, err = f.below(p.child(i), depth+1, from, to, visit)
		}
		return more && end == count, err
	}
	refs := make([]leafRef, 0, max(end-first, 0))
	for i := first; i < end; i++ {
		refs = append(refs, leafRef{p.child(i), from == nil || bytes.Compare(p.branchKey(i), from) >= 0})
	}
	more, err = visit(refs)
	return more && end == count, err
}

// needed is how many bytes from the beginning of a leaf on hold a row of so many bytes. bbolt puts at least two rows on a page.
func (f *pageFinder) needed(place leafPlace, rowBytes int64) int64 {
	const around = pageHeaderBytes + 4*elementBytes + 2*rowKeyBytes
	n := place.pages * f.pageBytes
	if n == 0 {
		n = f.pageBytes
		if two := 2*rowBytes + around; two > n {
			n = two
		}
	}
	if place.first {
		n = min(n, max(rowBytes+around, headBytes))
	}
	return n
}
