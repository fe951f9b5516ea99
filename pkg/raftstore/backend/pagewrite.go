package backend

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const (
	flagMeta     = 4
	metaVersion  = 2
	metaPages    = 2
	freelistPage = metaPages
	// rowsPerPageMin is how many rows, or children, are on a page at least before another one is begun, as bbolt has it.
	rowsPerPageMin = 2
)

// pageWriter makes a file from the rows of bucket key, which are added in their order: leaves as they are full, and the branches above them
// in between, each page behind the one before. Nothing is written twice, nothing of what was written is needed again, and its memory is
// used again: a transaction of bbolt's makes garbage of all that it writes. Before finish the file means nothing.
//
//	page 0, 1 meta | 2 list of no free pages | 3 on: leaves and branches of key | the last: the buckets, all others empty
type pageWriter struct {
	file      vfs.File
	pageBytes int
	next      uint64 // the page behind the last one
	pending   []byte // pages that are not in the file yet; next is behind them
	leaf      openPage
	branches  []*openPage // above the leaves, the lowest first
}

// openPage is a page that is not full yet.
type openPage struct {
	flags    uint16
	elements []pageElement
	data     []byte // keys and values of all elements
}

type pageElement struct {
	flags        uint32 // of a leaf
	ksize, vsize int
	child        uint64 // of a branch
}

// bucketName is a bucket as the file lists it.
type bucketName struct {
	name     []byte
	sequence uint64
}

func newPageWriter(f vfs.File, pageBytes int) *pageWriter {
	return &pageWriter{file: f, pageBytes: pageBytes, next: freelistPage + 1, leaf: openPage{flags: flagLeaf}}
}

// add adds the next row. It keeps neither slice.
func (w *pageWriter) add(key, value []byte) {
	if len(w.leaf.elements) >= rowsPerPageMin && w.leaf.bytes()+elementBytes+len(key)+len(value) > w.pageBytes {
		w.close(0, &w.leaf, len(w.leaf.elements))
	}
	w.leaf.add(pageElement{vsize: len(value)}, key, value)
}

// close writes the first n elements of a page as a page of its own, and notes it in the branch above: that of a level, of which 0 is above
// the leaves.
func (w *pageWriter) close(level int, p *openPage, n int) {
	if level == len(w.branches) {
		w.branches = append(w.branches, &openPage{flags: flagBranch})
	}
	key := p.data[:p.elements[0].ksize]
	id := w.put(p, n)
	above := w.branches[level]
	have, full := len(above.elements), above.bytes()+elementBytes+len(key) > w.pageBytes
	above.add(pageElement{child: id}, key, nil)
	if full && have > rowsPerPageMin {
		w.close(level+1, above, have-1) // two stay, as bbolt's deletes do not expect a branch with one child
	}
	p.drop(n)
}

// put appends a page of the first n elements.
func (w *pageWriter) put(p *openPage, n int) (id uint64) {
	id = w.next
	data := p.dataOf(n)
	bytes := pageHeaderBytes + n*elementBytes + len(data)
	pages := (bytes + w.pageBytes - 1) / w.pageBytes
	w.next += uint64(pages)
	b := appendPageHeader(w.pending, id, p.flags, n, pages)
	from := n * elementBytes // of the data, from the element on
	for _, e := range p.elements[:n] {
		if p.flags == flagBranch {
			b = binary.LittleEndian.AppendUint32(b, uint32(from))
			b = binary.LittleEndian.AppendUint32(b, uint32(e.ksize))
			b = binary.LittleEndian.AppendUint64(b, e.child)
		} else {
			b = binary.LittleEndian.AppendUint32(b, e.flags)
			b = binary.LittleEndian.AppendUint32(b, uint32(from))
			b = binary.LittleEndian.AppendUint32(b, uint32(e.ksize))
			b = binary.LittleEndian.AppendUint32(b, uint32(e.vsize))
		}
		from += e.ksize + e.vsize - elementBytes
	}
	b = append(b, data...)
	w.pending = appendZeros(b, pages*w.pageBytes-bytes)
	return id
}

// flush puts what is pending into the file.
func (w *pageWriter) flush() error {
	at := int64(w.next)*int64(w.pageBytes) - int64(len(w.pending))
	_, err := w.file.WriteAt(w.pending, at)
	w.pending = w.pending[:0]
	return err
}

// finish writes the rest, and what makes it a file with so many buckets, by name.
func (w *pageWriter) finish(buckets []bucketName) error {
	root := w.root()
	list := openPage{flags: flagLeaf}
	for _, b := range buckets {
		v := make([]byte, 0, bucketBytes+pageHeaderBytes)
		if string(b.name) == string(bucketKey) {
			v = appendBucket(v, root, b.sequence)
		} else {
			v = appendPageHeader(appendBucket(v, 0, b.sequence), 0, flagLeaf, 0, 1) // its page stands in the list
		}
		list.add(pageElement{flags: flagBucketLeaf, vsize: len(v)}, b.name, v)
	}
	root = w.put(&list, len(list.elements))
	if err := w.flush(); err != nil {
		return err
	}
	var head []byte
	for i := range uint64(metaPages) {
		head = w.appendMeta(appendPageHeader(head, i, flagMeta, 0, 1), root, i)
		head = appendZeros(head, int(i+1)*w.pageBytes-len(head))
	}
	head = appendPageHeader(head, freelistPage, flagFreelist, 0, 1)
	head = appendZeros(head, (freelistPage+1)*w.pageBytes-len(head))
	_, err := w.file.WriteAt(head, 0)
	return err
}

// root closes all open pages.
func (w *pageWriter) root() uint64 {
	if len(w.branches) == 0 {
		return w.put(&w.leaf, len(w.leaf.elements))
	}
	w.close(0, &w.leaf, len(w.leaf.elements))
	for level := 0; ; level++ {
		p := w.branches[level]
		if level == len(w.branches)-1 {
			return w.put(p, len(p.elements))
		}
		w.close(level+1, p, len(p.elements))
	}
}

func (w *pageWriter) appendMeta(b []byte, root, txid uint64) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(b, metaMagic)
	b = binary.LittleEndian.AppendUint32(b, metaVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(w.pageBytes))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = appendBucket(b, root, 0)
	b = binary.LittleEndian.AppendUint64(b, freelistPage)
	b = binary.LittleEndian.AppendUint64(b, w.next)
	b = binary.LittleEndian.AppendUint64(b, txid)
	sum := fnv.New64a()
	sum.Write(b[from:])
	return binary.LittleEndian.AppendUint64(b, sum.Sum64())
}

func appendBucket(b []byte, root, sequence uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, root), sequence)
}

func appendPageHeader(b []byte, id uint64, flags uint16, count, pages int) []byte {
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(count))
	return binary.LittleEndian.AppendUint32(b, uint32(pages-1))
}

func appendZeros(b []byte, n int) []byte {
	for ; n > len(zeros); n -= len(zeros) {
		b = append(b, zeros[:]...)
	}
	return append(b, zeros[:n]...)
}

var zeros [4 << 10]byte

func (p *openPage) bytes() int {
	return pageHeaderBytes + len(p.elements)*elementBytes + len(p.data)
}

func (p *openPage) add(e pageElement, key, value []byte) {
	e.ksize = len(key)
	p.elements = append(p.elements, e)
	p.data = append(append(p.data, key...), value...)
}

// dataOf is the data of the first n elements.
func (p *openPage) dataOf(n int) []byte {
	size := len(p.data)
	for _, e := range p.elements[n:] {
		size -= e.ksize + e.vsize
	}
	return p.data[:size]
}

// drop takes the first n elements off.
func (p *openPage) drop(n int) {
	p.data = append(p.data[:0], p.data[len(p.dataOf(n)):]...)
	p.elements = append(p.elements[:0], p.elements[n:]...)
}
