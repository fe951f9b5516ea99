package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sort"
)

// pageReader reads rows by their pages from the file, not from its mapping. A page that is not in memory is waited for in a system call
// then. A fault in the mapping would be the same wait, but one that the Go runtime does not know of: a collection that begins meanwhile
// stops the world until the disk has answered. It needs an open Tx, so that the pages stay what they are.
type pageReader struct {
	file      *os.File
	path      string // what the file is called by now
	pageBytes int64
	buffers   [][]byte // by depth
}

// page reads a page with its overflow. The one that was read at the same depth before is not valid any more.
func (r *pageReader) page(id uint64, depth int) ([]byte, error) {
	if depth == len(r.buffers) {
		r.buffers = append(r.buffers, make([]byte, r.pageBytes))
	}
	b := r.buffers[depth][:r.pageBytes]
	at := int64(id) * r.pageBytes
	if _, err := r.file.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	if binary.LittleEndian.Uint64(b) != id {
		return nil, &CorruptError{File: r.path, Offset: at, Reason: fmt.Sprintf("page %d says it is page %d", id, binary.LittleEndian.Uint64(b))}
	}
	b, err := r.longer(b, id)
	if err == nil {
		r.buffers[depth] = b
	}
	return b, err
}

// longer reads what a page has beyond its first part: as much as its elements need. How long it says that it is may be damaged.
func (r *pageReader) longer(b []byte, id uint64) ([]byte, error) {
	at := int64(id) * r.pageBytes
	bytes := (int64(binary.LittleEndian.Uint32(b[12:])) + 1) * r.pageBytes
	for _, end := range []func() int64{
		func() int64 { return pageHeaderBytes + int64(binary.LittleEndian.Uint16(b[10:]))*elementBytes },
		func() int64 { return elementsEnd(b) },
	} {
		n, have := end(), int64(len(b))
		if n > bytes {
			return nil, &CorruptError{File: r.path, Offset: at, Reason: fmt.Sprintf("an element of page %d lies outside of it", id)}
		}
		if n <= have {
			continue
		}
		b = slices.Grow(b, int(n-have))[:n]
		if _, err := r.file.ReadAt(b[have:], at+have); err != nil {
			return nil, fmt.Errorf("read page %d: %w", id, err)
		}
	}
	return b, nil
}

// elementsEnd is how many bytes of a page its elements reach to. b has all elements.
func elementsEnd(b []byte) int64 {
	count := int64(binary.LittleEndian.Uint16(b[10:]))
	end := pageHeaderBytes + count*elementBytes
	for i := range count {
		at := pageHeaderBytes + i*elementBytes
		e := b[at:]
		if binary.LittleEndian.Uint16(b[8:])&flagBranch != 0 {
			end = max(end, at+int64(binary.LittleEndian.Uint32(e))+int64(binary.LittleEndian.Uint32(e[4:])))
		} else {
			end = max(end, at+int64(binary.LittleEndian.Uint32(e[4:]))+int64(binary.LittleEndian.Uint32(e[8:]))+int64(binary.LittleEndian.Uint32(e[12:])))
		}
	}
	return end
}

// walk gives the rows below a page whose keys are above a given one, in order, until visit answers false. What it gives is valid until
// visit returns.
func (r *pageReader) walk(root uint64, above []byte, visit func(k, v []byte) (more bool, err error)) (more bool, err error) {
	return r.below(root, 0, above, visit)
}

func (r *pageReader) below(id uint64, depth int, above []byte, visit func(k, v []byte) (more bool, err error)) (more bool, err error) {
	b, err := r.page(id, depth)
	if err != nil {
		return false, err
	}
	count := int(binary.LittleEndian.Uint16(b[10:]))
	element := func(i int) []byte { return b[pageHeaderBytes+i*elementBytes:] }
	if binary.LittleEndian.Uint16(b[8:])&flagBranch != 0 {
		key := func(i int) []byte {
			e := element(i)
			return e[binary.LittleEndian.Uint32(e):][:binary.LittleEndian.Uint32(e[4:])]
		}
		first := sort.Search(count, func(i int) bool { return bytes.Compare(key(i), above) > 0 })
		for i := max(first-1, 0); i < count; i++ {
			if more, err = r.below(binary.LittleEndian.Uint64(element(i)[8:]), depth+1, above, visit); err != nil || !more {
				return more, err
			}
		}
		return true, nil
	}
	row := func(i int) (k, v []byte) {
		e := element(i)
		if binary.LittleEndian.Uint32(e)&flagBucketLeaf != 0 {
			panic("a bucket within a bucket") // of etcd's nothing has one
		}
		kv := e[binary.LittleEndian.Uint32(e[4:]):]
		ksize, vsize := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		return kv[:ksize:ksize], kv[ksize:][:vsize:vsize]
	}
	first := sort.Search(count, func(i int) bool { k, _ := row(i); return bytes.Compare(k, above) > 0 })
	for i := first; i < count; i++ {
		k, v := row(i)
		if more, err = visit(k, v); err != nil || !more {
			return more, err
		}
	}
	return true, nil
}
