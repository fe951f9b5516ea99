package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"sync/atomic"
)

// A bbolt file by its pages, read without bbolt. bbolt trusts them: a flipped bit in a page makes it panic, read outside of its
// mapping, or follow pages in a circle. So Open walks them first. What is compared: ids, flags, counts, places of elements, order of
// keys, that each page below the high water mark is used once or free, and nothing else. The rows' bytes are for the sums.
//
// Nearly all pages are leaves of bucket key. Load reads those anyway, and nothing else does before it: it looks at them as it reads them,
// and a file that will be loaded is opened without. Who opens one to read only may have anything else in mind; then all are walked first.
//
//	page      id u64 | flags u16 | count u16 | overflow u32 | elements        (native, here little endian)
//	branch    pos u32 | ksize u32 | child u64        pos counts from the element
//	leaf      flags u32 | pos u32 | ksize u32 | vsize u32
//	meta      magic u32 | version u32 | page size u32 | flags u32 | root u64, sequence u64 | freelist u64 | high water u64 |
//	          txid u64 | checksum u64: FNV-1a of what is before it
//	freelist  ids u64, ascending; a count of 0xffff says that the first is the count
const (
	pageHeaderBytes = 16
	elementBytes    = 16
	flagBranch      = 1
	flagLeaf        = 2
	flagFreelist    = 16
	flagBucketLeaf  = 1
	bucketBytes     = 16
	metaMagic       = 0xED0CDAED
	metaSumAt       = 56
	metaBytes       = 64
	noFreelist      = ^uint64(0) // etcd does not keep it in the file
	countInBody     = 0xffff
	pageDepthMax    = 64
	pageBytesMin    = 1 << 10
	pageBytesMax    = 1 << 16
	headBytes       = 4 << 10 // is read of a leaf, if that holds the elements
)

// pageWalker follows the pages from the root.
type pageWalker struct {
	file      io.ReaderAt
	pageBytes int64
	highWater uint64
	root      uint64
	freelist  uint64
	txid      uint64
	used      []uint64 // a bit for each page
	shallow   bool     // the leaves of bucket key are left out
	inKey     bool     // it is within bucket key, and shallow
	leafDepth int      // there: how deep its leaves are, 0: not known yet
	buffers   [pageDepthMax + 2][]byte
	offset    int64
	reason    string
}

// locate is the first place at which the pages of a file contradict themselves; an empty reason if none does, or if it cannot be read.
func locate(path string) (offset int64, reason string) { return locateIn(path, false) }

func locateIn(path string, shallow bool) (offset int64, reason string) {
	f, err := os.Open(path)
	if err != nil {
		return -1, ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return -1, ""
	}
	w := &pageWalker{file: f, offset: -1, shallow: shallow}
	if w.meta(info.Size()) && w.page(w.root, 0) && w.free() && !shallow {
		w.complete()
	}
	return w.offset, w.reason
}

func (w *pageWalker) wrong(offset int64, format string, args ...any) bool {
	if w.reason == "" {
		w.offset, w.reason = offset, fmt.Sprintf(format, args...)
	}
	return false
}

// meta is newest, for a walk.
func (w *pageWalker) meta(fileBytes int64) bool {
	if !w.newest(fileBytes) {
		return false
	}
	w.used = make([]uint64, w.highWater/64+1)
	return true
}

// newest picks the meta page of the newest transaction whose checksum is right, as bbolt does.
func (w *pageWalker) newest(fileBytes int64) bool {
	var newest uint64
	found := false
	places := []int64{0}
	for at := int64(pageBytesMin); at <= pageBytesMax; at *= 2 {
		places = append(places, at)
	}
	b := make([]byte, pageHeaderBytes+metaBytes)
	for _, at := range places {
		if _, err := w.file.ReadAt(b, at); err != nil {
			continue
		}
		m := b[pageHeaderBytes:]
		sum := fnv.New64a()
		sum.Write(m[:metaSumAt])
		size := int64(binary.LittleEndian.Uint32(m[8:]))
		if binary.LittleEndian.Uint32(m) != metaMagic || binary.LittleEndian.Uint64(m[metaSumAt:]) != sum.Sum64() || at != 0 && at != size {
			continue
		}
		if txid := binary.LittleEndian.Uint64(m[48:]); !found || txid > newest {
			newest, w.txid, found = txid, txid, true
			w.pageBytes = size
			w.root, w.freelist, w.highWater = binary.LittleEndian.Uint64(m[16:]), binary.LittleEndian.Uint64(m[32:]), binary.LittleEndian.Uint64(m[40:])
		}
	}
	switch {
	case !found:
		return w.wrong(0, "no meta page has a valid checksum")
	case w.pageBytes < pageBytesMin || w.highWater > uint64(fileBytes/w.pageBytes):
		return w.wrong(0, "%d pages of %d bytes are in use, and the file has %d bytes", w.highWater, w.pageBytes, fileBytes)
	}
	return true
}

// use notes that pages are used, once.
func (w *pageWalker) use(id, more uint64) bool {
	at, reason := w.claim(id, more)
	return reason == "" || w.wrong(at, "%s", reason)
}

// claim is use for several goroutines at a time.
func (w *pageWalker) claim(id, more uint64) (offset int64, reason string) {
	if id < 2 || id >= w.highWater || more >= w.highWater-id {
		return int64(id) * w.pageBytes, fmt.Sprintf("page %d and %d more are not within the %d pages", id, more, w.highWater)
	}
	for p := id; p <= id+more; p++ {
		if bit := uint64(1) << (p % 64); atomic.OrUint64(&w.used[p/64], bit)&bit != 0 {
			return int64(p) * w.pageBytes, fmt.Sprintf("page %d is used twice", p)
		}
	}
	return 0, ""
}

// head reads the first n bytes of a page, or all of it if it is shorter.
func (w *pageWalker) head(id uint64, n int64, depth int) ([]byte, bool) {
	if int64(cap(w.buffers[depth])) < n {
		w.buffers[depth] = make([]byte, n)
	}
	b := w.buffers[depth][:n]
	if _, err := w.file.ReadAt(b, int64(id)*w.pageBytes); err != nil {
		return nil, w.wrong(int64(id)*w.pageBytes, "read page %d: %v", id, err)
	}
	return b, true
}

// page checks a page and all below it.
func (w *pageWalker) page(id uint64, depth int) bool {
	at := int64(id) * w.pageBytes
	if depth > pageDepthMax {
		return w.wrong(at, "pages are nested %d deep", depth)
	}
	if id < 2 || id >= w.highWater {
		return w.wrong(at, "page %d is not within the %d pages", id, w.highWater)
	}
	if depth == w.leafDepth && w.inKey {
		return true
	}
	b, ok := w.head(id, min(w.pageBytes, headBytes), depth)
	if !ok {
		return false
	}
	if w.inKey && binary.LittleEndian.Uint16(b[8:]) == flagLeaf {
		if w.leafDepth != 0 {
			return w.wrong(at, "page %d is a leaf and less deep than others", id)
		}
		w.leafDepth = depth // of all of them
		return true
	}
	if got := binary.LittleEndian.Uint64(b); got != id {
		return w.wrong(at, "page %d says it is page %d", id, got)
	}
	more := uint64(binary.LittleEndian.Uint32(b[12:]))
	if !w.use(id, more) {
		return false
	}
	p := pageView{b: b, at: at, bytes: int64(more+1) * w.pageBytes, count: int64(binary.LittleEndian.Uint16(b[10:]))}
	if need := pageHeaderBytes + p.count*elementBytes; need > p.bytes {
		return w.wrong(at+10, "page %d has %d elements", id, p.count)
	} else if need > int64(len(b)) {
		if p.b, ok = w.head(id, need, depth); !ok {
			return false
		}
	}
	switch flags := binary.LittleEndian.Uint16(p.b[8:]); flags {
	case flagBranch:
		if p.b, ok = w.head(id, max(w.pageBytes, int64(len(p.b))), depth); !ok {
			return false
		}
		return w.branch(p, depth)
	case flagLeaf:
		return w.leaf(p, depth)
	default:
		return w.wrong(at+8, "page %d has flags %#x", id, flags)
	}
}

// pageView is a page whose elements are read, and maybe not all of what they point to.
type pageView struct {
	b     []byte
	at    int64 // in the file
	bytes int64 // of the page with its overflow
	count int64
}

// span checks that [from, from+size) lies behind the elements, and gives the part that is read.
func (p *pageView) span(from, size int64) ([]byte, bool) {
	if from < pageHeaderBytes+p.count*elementBytes || size < 0 || from+size > p.bytes {
		return nil, false
	}
	return p.b[min(from, int64(len(p.b))):min(from+size, int64(len(p.b)))], true
}

func (w *pageWalker) branch(p pageView, depth int) bool {
	if p.count == 0 {
		return w.wrong(p.at+10, "branch page has no elements")
	}
	var before []byte
	for i := range p.count {
		e := pageHeaderBytes + i*elementBytes
		size := int64(binary.LittleEndian.Uint32(p.b[e+4:]))
		key, ok := p.span(e+int64(binary.LittleEndian.Uint32(p.b[e:])), size)
		if !ok {
			return w.wrong(p.at+e, "an element of the branch page at %d lies outside of it", p.at)
		}
		if int64(len(key)) == size && i > 0 && before != nil && bytes.Compare(key, before) <= 0 {
			return w.wrong(p.at+e, "key %q does not follow %q", key, before)
		}
		if before = nil; int64(len(key)) == size {
			before = key
		}
		if !w.page(binary.LittleEndian.Uint64(p.b[e+8:]), depth+1) {
			return false
		}
	}
	return true
}

func (w *pageWalker) leaf(p pageView, depth int) bool {
	var before []byte
	for i := range p.count {
		e := pageHeaderBytes + i*elementBytes
		flags, from := binary.LittleEndian.Uint32(p.b[e:]), e+int64(binary.LittleEndian.Uint32(p.b[e+4:]))
		ksize, vsize := int64(binary.LittleEndian.Uint32(p.b[e+8:])), int64(binary.LittleEndian.Uint32(p.b[e+12:]))
		row, ok := p.span(from, ksize+vsize)
		if !ok {
			return w.wrong(p.at+e, "an element of the leaf page at %d lies outside of it", p.at)
		}
		if flags > flagBucketLeaf {
			return w.wrong(p.at+e, "leaf element has flags %#x", flags)
		}
		whole := int64(len(row)) >= ksize
		if whole && before != nil && bytes.Compare(row[:ksize], before) <= 0 {
			return w.wrong(p.at+from, "key %q does not follow %q", row[:ksize], before)
		}
		if before = nil; whole {
			before = row[:ksize]
		}
		if flags == flagBucketLeaf {
			w.inKey = w.shallow && whole && bytes.Equal(before, bucketKey)
			ok := w.bucket(p.at+from+ksize, vsize, depth)
			if w.inKey, w.leafDepth = false, 0; !ok {
				return false
			}
		}
	}
	return true
}

// bucket is the value of a leaf element that is a bucket: its root page, 0 if the page stands right behind it.
func (w *pageWalker) bucket(at, size int64, depth int) bool {
	v := make([]byte, min(size, w.pageBytes)) // an inline page is at most a quarter of a page
	if _, err := w.file.ReadAt(v, at); err != nil {
		return w.wrong(at, "read bucket: %v", err)
	}
	if len(v) < bucketBytes {
		return w.wrong(at, "bucket header of %d bytes", len(v))
	}
	if root := binary.LittleEndian.Uint64(v); root != 0 {
		return w.page(root, depth+1)
	}
	w.inKey = false // its leaf stands here
	if len(v) < bucketBytes+pageHeaderBytes {
		return w.wrong(at, "inline bucket of %d bytes", len(v))
	}
	inline := v[bucketBytes:]
	p := pageView{b: inline, at: at + bucketBytes, bytes: int64(len(inline)), count: int64(binary.LittleEndian.Uint16(inline[10:]))}
	if flags := binary.LittleEndian.Uint16(inline[8:]); flags != flagLeaf || pageHeaderBytes+p.count*elementBytes > p.bytes {
		return w.wrong(p.at+8, "inline page has flags %#x and %d elements", flags, p.count)
	}
	return w.leaf(p, depth+1)
}

// free notes the free pages, which are not to be used by anything else.
func (w *pageWalker) free() bool {
	if w.freelist == noFreelist {
		return true
	}
	at := int64(w.freelist) * w.pageBytes
	b, ok := w.head(w.freelist, w.pageBytes, 0)
	if !ok {
		return false
	}
	more := uint64(binary.LittleEndian.Uint32(b[12:]))
	if flags := binary.LittleEndian.Uint16(b[8:]); flags != flagFreelist || binary.LittleEndian.Uint64(b) != w.freelist || !w.use(w.freelist, more) {
		return w.wrong(at, "freelist: page %d has id %d and flags %#x", w.freelist, binary.LittleEndian.Uint64(b), flags)
	}
	if b, ok = w.head(w.freelist, int64(more+1)*w.pageBytes, 0); !ok {
		return false
	}
	count, ids := uint64(binary.LittleEndian.Uint16(b[10:])), b[pageHeaderBytes:]
	if count == countInBody {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return w.wrong(at+10, "freelist: %d pages do not fit into it", count)
	}
	for i := range count {
		if !w.use(binary.LittleEndian.Uint64(ids[i*8:]), 0) {
			w.offset, w.reason = at, "freelist: "+w.reason
			return false
		}
	}
	return true
}

// complete looks for pages that nobody has noted.
func (w *pageWalker) complete() bool {
	if w.freelist == noFreelist {
		return true
	}
	for p := uint64(2); p < w.highWater; p++ {
		if w.used[p/64]&(1<<(p%64)) == 0 {
			return w.wrong(int64(p)*w.pageBytes, "page %d is neither used nor free", p)
		}
	}
	return true
}
