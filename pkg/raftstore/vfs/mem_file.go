package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

type memFile struct {
	fs       *Mem
	name     string
	node     *memNode
	readOnly bool
	direct   bool // takes aligned reads and writes only
	closed   bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, f.fail("read", fs.ErrClosed)
	}
	if f.direct && !aligned(p, off, SectorBytes) {
		return 0, f.fail("read", syscall.EINVAL)
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("write"); err != nil {
		return 0, err
	}
	if f.direct && !aligned(p, off, SectorBytes) {
		return 0, f.fail("write", syscall.EINVAL)
	}
	if end := off + int64(len(p)); end > int64(len(f.node.data)) {
		if err := f.grow("write", end); err != nil {
			return 0, err
		}
	}
	copy(f.node.data[off:], p)
	f.node.pending = append(f.node.pending, dataOp{offset: off, data: append([]byte{}, p...)})
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.fail("sync", fs.ErrClosed)
	}
	f.node.flush()
	return nil
}

func (f *memFile) Preallocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("preallocate"); err != nil {
		return err
	}
	if size <= int64(len(f.node.data)) {
		return nil
	}
	return f.grow("preallocate", size)
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("truncate"); err != nil {
		return err
	}
	f.node.resize(size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, f.fail("stat", fs.ErrClosed)
	}
	return int64(len(f.node.data)), nil
}

// Block is the smallest that a disk has.
func (f *memFile) Block() int64 {
	if f.direct {
		return SectorBytes
	}
	return 1
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// grow makes the file size bytes long if the capacity allows it.
func (f *memFile) grow(op string, size int64) error {
	more := size - int64(len(f.node.data))
	if f.fs.capacity > 0 && f.fs.used()+more > f.fs.capacity {
		return f.fail(op, syscall.ENOSPC)
	}
	f.node.resize(size)
	return nil
}

func (f *memFile) writable(op string) error {
	if f.closed {
		return f.fail(op, fs.ErrClosed)
	}
	if f.readOnly {
		return f.fail(op, fs.ErrPermission)
	}
	return nil
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (n *memNode) resize(size int64) {
	n.data = resized(n.data, size)
	n.pending = append(n.pending, dataOp{offset: size})
}

// flush brings the durable image up to date by doing the pending operations again, which costs what was written, not what
// the file holds.
func (n *memNode) flush() {
	for _, op := range n.pending {
		n.synced = op.applyTo(n.synced)
	}
	n.pending = nil
}

func (op dataOp) applyTo(data []byte) []byte {
	if op.data == nil {
		return resized(data, op.offset)
	}
	if end := op.offset + int64(len(op.data)); end > int64(len(data)) {
		data = resized(data, end)
	}
	copy(data[op.offset:], op.data)
	return data
}

func resized(data []byte, size int64) []byte {
	if size <= int64(cap(data)) {
		old := len(data)
		data = data[:size]
		if int(size) > old {
			clear(data[old:])
		}
		return data
	}
	bigger := make([]byte, size)
	copy(bigger, data)
	return bigger
}
