package backend

import (
	"encoding/binary"
	"fmt"
	"os"
)

// A bbolt file by its pages, read without bbolt: where bbolt only panics, this says which byte is wrong.
//
//	page      id u64 | flags u16 | count u16 | overflow u32 | elements        (native, here little endian)
//	branch    pos u32 | ksize u32 | child u64        pos counts from the element
//	leaf      flags u32 | pos u32 | ksize u32 | vsize u32
//	meta      magic u32 | version u32 | page size u32 | flags u32 | root u64, sequence u64 | freelist u64 | high water u64 |
//	          txid u64 | checksum u64
const (
	pageHeaderBytes  = 16
	branchBytes      = 16
	leafBytes        = 16
	flagBranch       = 1
	flagLeaf         = 2
	flagMeta         = 4
	flagBucketLeaf   = 1
	bucketBytes      = 16
	metaMagic        = 0xED0CDAED
	pageDepthMax     = 64
	defaultPageBytes = 4096
)

// pageWalker follows the pages from the root.
type pageWalker struct {
	file      *os.File
	pageBytes int64
	highWater uint64
	seen      map[uint64]bool
	offset    int64
	reason    string
}

// locate is the first place at which the pages of a file contradict themselves; an empty reason if none does.
func locate(path string) (offset int64, reason string) {
	f, err := os.Open(path)
	if err != nil {
		return -1, ""
	}
	defer f.Close()
	w := &pageWalker{file: f, pageBytes: defaultPageBytes, seen: make(map[uint64]bool), offset: -1}
	root, ok := w.meta()
	if ok {
		w.page(root, 0)
	}
	return w.offset, w.reason
}

func (w *pageWalker) wrong(offset int64, format string, args ...any) bool {
	if w.reason == "" {
		w.offset, w.reason = offset, fmt.Sprintf(format, args...)
	}
	return false
}

// meta picks the meta page of the newest transaction.
func (w *pageWalker) meta() (root uint64, ok bool) {
	var newest uint64
	for _, at := range []int64{0, defaultPageBytes} {
		b := make([]byte, 80)
		if _, err := w.file.ReadAt(b, at); err != nil {
			continue
		}
		m := b[pageHeaderBytes:]
		if binary.LittleEndian.Uint32(m) != metaMagic {
			continue
		}
		if txid := binary.LittleEndian.Uint64(m[48:]); txid >= newest {
			newest, ok = txid, true
			w.pageBytes = int64(binary.LittleEndian.Uint32(m[8:]))
			root, w.highWater = binary.LittleEndian.Uint64(m[16:]), binary.LittleEndian.Uint64(m[40:])
		}
	}
	if !ok {
		w.wrong(0, "no meta page")
	}
	return root, ok
}

// page checks a page and all below it.
func (w *pageWalker) page(id uint64, depth int) bool {
	at := int64(id) * w.pageBytes
	if id < 2 || id >= w.highWater || depth > pageDepthMax {
		return w.wrong(at, "page %d is not below the high water mark %d", id, w.highWater)
	}
	if w.seen[id] {
		return w.wrong(at, "page %d is used twice", id)
	}
	w.seen[id] = true
	head := make([]byte, pageHeaderBytes)
	if _, err := w.file.ReadAt(head, at); err != nil {
		return w.wrong(at, "read page %d: %v", id, err)
	}
	if got := binary.LittleEndian.Uint64(head); got != id {
		return w.wrong(at, "page %d says it is page %d", id, got)
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if id+overflow >= w.highWater {
		return w.wrong(at+12, "page %d with %d more pages passes the high water mark", id, overflow)
	}
	b := make([]byte, int64(overflow+1)*w.pageBytes)
	if _, err := w.file.ReadAt(b, at); err != nil {
		return w.wrong(at, "read page %d: %v", id, err)
	}
	count := int(binary.LittleEndian.Uint16(b[10:]))
	switch flags := binary.LittleEndian.Uint16(b[8:]); flags {
	case flagBranch:
		return w.branch(b, at, count, depth)
	case flagLeaf:
		return w.leaf(b, at, count, depth)
	default:
		return w.wrong(at+8, "page %d has flags %#x", id, flags)
	}
}

// span is bytes [from, from+size) of a page, if they are inside.
func (w *pageWalker) span(b []byte, at int64, element, pos, size int) ([]byte, bool) {
	from := element + pos
	if pos < 0 || size < 0 || from < pageHeaderBytes || from+size > len(b) {
		return nil, w.wrong(at+int64(element), "an element of the page at %d lies outside of it", at)
	}
	return b[from : from+size], true
}

func (w *pageWalker) branch(b []byte, at int64, count, depth int) bool {
	if pageHeaderBytes+count*branchBytes > len(b) || count == 0 {
		return w.wrong(at+10, "branch page has %d elements", count)
	}
	for i := range count {
		e := pageHeaderBytes + i*branchBytes
		pos, size := int(binary.LittleEndian.Uint32(b[e:])), int(binary.LittleEndian.Uint32(b[e+4:]))
		if _, ok := w.span(b, at, e, pos, size); !ok {
			return false
		}
		if !w.page(binary.LittleEndian.Uint64(b[e+8:]), depth+1) {
			return false
		}
	}
	return true
}

func (w *pageWalker) leaf(b []byte, at int64, count, depth int) bool {
	if pageHeaderBytes+count*leafBytes > len(b) {
		return w.wrong(at+10, "leaf page has %d elements", count)
	}
	var before []byte
	for i := range count {
		e := pageHeaderBytes + i*leafBytes
		flags := binary.LittleEndian.Uint32(b[e:])
		pos, ksize, vsize := int(binary.LittleEndian.Uint32(b[e+4:])), int(binary.LittleEndian.Uint32(b[e+8:])), int(binary.LittleEndian.Uint32(b[e+12:]))
		row, ok := w.span(b, at, e, pos, ksize+vsize)
		if !ok {
			return false
		}
		if key := row[:ksize]; i > 0 && string(key) <= string(before) {
			return w.wrong(at+int64(e+pos), "key %q does not follow %q", key, before)
		}
		before = row[:ksize]
		if flags > flagBucketLeaf {
			return w.wrong(at+int64(e), "leaf element has flags %#x", flags)
		}
		if flags == flagBucketLeaf && !w.bucket(row[ksize:], at+int64(e+pos+ksize), depth) {
			return false
		}
	}
	return true
}

// bucket is the value of a leaf element that is a bucket: its root page, 0 if the page stands right behind it.
func (w *pageWalker) bucket(v []byte, at int64, depth int) bool {
	if len(v) < bucketBytes {
		return w.wrong(at, "bucket header of %d bytes", len(v))
	}
	if root := binary.LittleEndian.Uint64(v); root != 0 {
		return w.page(root, depth+1)
	}
	if len(v) < bucketBytes+pageHeaderBytes {
		return w.wrong(at, "bucket header of %d bytes", len(v))
	}
	inline := v[bucketBytes:]
	if flags := binary.LittleEndian.Uint16(inline[8:]); flags != flagLeaf {
		return w.wrong(at+bucketBytes+8, "inline page has flags %#x", flags)
	}
	return w.leaf(inline, at+bucketBytes, int(binary.LittleEndian.Uint16(inline[10:])), depth+1)
}
