package vfs

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// OpKind names a call of FS or File.
type OpKind string

// The calls a hook sees.
const (
	OpCreate      OpKind = "create"
	OpOpen        OpKind = "open"
	OpMkdirAll    OpKind = "mkdir"
	OpRemove      OpKind = "remove"
	OpRename      OpKind = "rename"
	OpList        OpKind = "list"
	OpStat        OpKind = "stat"
	OpSyncDir     OpKind = "syncdir"
	OpLock        OpKind = "lock"
	OpRead        OpKind = "read"
	OpWrite       OpKind = "write"
	OpSync        OpKind = "sync"
	OpPreallocate OpKind = "preallocate"
	OpTruncate    OpKind = "truncate"
	OpSize        OpKind = "size"
	OpClose       OpKind = "close"
)

// Changes tells whether a call of this kind changes what is on disk, or what is durable of it.
func (k OpKind) Changes() bool {
	switch k {
	case OpOpen, OpList, OpStat, OpLock, OpRead, OpSize, OpClose:
		return false
	}
	return true
}

// Op is one call. Path is the name of the file or directory; an open file that is renamed goes by its new name.
type Op struct {
	Kind    OpKind
	Path    string
	NewPath string // of a rename
	Offset  int64  // of a read or write
	Bytes   int64  // length of a read or write; the size for preallocate and truncate
}

func (o Op) String() string {
	switch o.Kind {
	case OpRename:
		return fmt.Sprintf("rename %s -> %s", o.Path, o.NewPath)
	case OpRead, OpWrite:
		return fmt.Sprintf("%s %s offset=%d bytes=%d", o.Kind, o.Path, o.Offset, o.Bytes)
	case OpPreallocate, OpTruncate:
		return fmt.Sprintf("%s %s bytes=%d", o.Kind, o.Path, o.Bytes)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// Hooks are called on the goroutine of the call they stand around; both may be nil.
type Hooks struct {
	// Before may block, which is how a slow disk is made. An error is the call's error, and the call is not done; a
	// *ShortWrite writes some bytes before.
	Before func(Op) error
	// After sees the outcome.
	After func(Op, error)
}

// ShortWrite, given by Hooks.Before for a write, lets Bytes of it happen and fails it with Err. As with a kernel, which runs
// out of blocks, not of bytes, the written part ends at a sector: Bytes is rounded down to that. For a file from
// OpenDirect it is rounded down to a block, and the call says, as the kernel does, that nothing was written.
type ShortWrite struct {
	Bytes int64
	Err   error
}

func (s *ShortWrite) Error() string {
	return fmt.Sprintf("short write of %d bytes: %v", s.Bytes, s.Err)
}

func (s *ShortWrite) Unwrap() error { return s.Err }

// Hooked wraps a file system so that each call passes the hooks.
func Hooked(inner FS, h Hooks) FS {
	return &hookedFS{inner: inner, hooks: h, open: map[*hookedFile]string{}}
}

type hookedFS struct {
	inner FS
	hooks Hooks

	mu   sync.Mutex
	open map[*hookedFile]string // names of the open files
}

type hookedFile struct {
	fs     *hookedFS
	inner  File
	direct bool
}

func (h *hookedFS) do(op Op, call func() error) error {
	var err error
	if h.hooks.Before != nil {
		err = h.hooks.Before(op)
	}
	if err == nil {
		err = call()
	}
	if h.hooks.After != nil {
		h.hooks.After(op, err)
	}
	return err
}

func (h *hookedFS) openFile(kind OpKind, name string, call func(string) (File, error), direct bool) (File, error) {
	var f File
	err := h.do(Op{Kind: kind, Path: name}, func() (err error) {
		f, err = call(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	opened := &hookedFile{fs: h, inner: f, direct: direct}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[opened] = name
	return opened, nil
}

func (h *hookedFS) Create(name string) (File, error) {
	return h.openFile(OpCreate, name, h.inner.Create, false)
}

func (h *hookedFS) Open(name string) (File, error) {
	return h.openFile(OpOpen, name, h.inner.Open, false)
}

func (h *hookedFS) OpenDirect(name string) (File, error) {
	return h.openFile(OpOpen, name, h.inner.OpenDirect, true)
}

func (h *hookedFS) OpenReadOnly(name string) (File, error) {
	return h.openFile(OpOpen, name, h.inner.OpenReadOnly, false)
}

func (h *hookedFS) MkdirAll(dir string) error {
	return h.do(Op{Kind: OpMkdirAll, Path: dir}, func() error { return h.inner.MkdirAll(dir) })
}

func (h *hookedFS) Remove(name string) error {
	return h.do(Op{Kind: OpRemove, Path: name}, func() error { return h.inner.Remove(name) })
}

func (h *hookedFS) Rename(oldName, newName string) error {
	op := Op{Kind: OpRename, Path: oldName, NewPath: newName}
	err := h.do(op, func() error { return h.inner.Rename(oldName, newName) })
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		for f, name := range h.open {
			if name == oldName {
				h.open[f] = newName
			}
		}
	}
	return err
}

func (h *hookedFS) List(dir string) (names []string, err error) {
	err = h.do(Op{Kind: OpList, Path: dir}, func() (err error) {
		names, err = h.inner.List(dir)
		return err
	})
	return names, err
}

func (h *hookedFS) Stat(name string) (info Info, err error) {
	err = h.do(Op{Kind: OpStat, Path: name}, func() (err error) {
		info, err = h.inner.Stat(name)
		return err
	})
	return info, err
}

func (h *hookedFS) SyncDir(dir string) error {
	return h.do(Op{Kind: OpSyncDir, Path: dir}, func() error { return h.inner.SyncDir(dir) })
}

func (h *hookedFS) Lock(name string) (lock io.Closer, err error) {
	err = h.do(Op{Kind: OpLock, Path: name}, func() (err error) {
		lock, err = h.inner.Lock(name)
		return err
	})
	return lock, err
}

func (f *hookedFile) ReadAt(p []byte, off int64) (n int, err error) {
	op := Op{Kind: OpRead, Path: f.name(), Offset: off, Bytes: int64(len(p))}
	err = f.fs.do(op, func() (err error) {
		n, err = f.inner.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *hookedFile) WriteAt(p []byte, off int64) (n int, err error) {
	op := Op{Kind: OpWrite, Path: f.name(), Offset: off, Bytes: int64(len(p))}
	err = f.fs.do(op, func() (err error) {
		n, err = f.inner.WriteAt(p, off)
		return err
	})
	var short *ShortWrite
	if errors.As(err, &short) && n == 0 {
		unit := max(f.inner.Block(), SectorBytes)
		end := (off + min(short.Bytes, int64(len(p)))) / unit * unit
		if n, _ = f.inner.WriteAt(p[:max(end-off, 0)], off); f.direct {
			n = 0
		}
	}
	return n, err
}

func (f *hookedFile) Sync() error {
	return f.fs.do(Op{Kind: OpSync, Path: f.name()}, f.inner.Sync)
}

func (f *hookedFile) Preallocate(size int64) error {
	op := Op{Kind: OpPreallocate, Path: f.name(), Bytes: size}
	return f.fs.do(op, func() error { return f.inner.Preallocate(size) })
}

func (f *hookedFile) Truncate(size int64) error {
	op := Op{Kind: OpTruncate, Path: f.name(), Bytes: size}
	return f.fs.do(op, func() error { return f.inner.Truncate(size) })
}

func (f *hookedFile) Size() (size int64, err error) {
	err = f.fs.do(Op{Kind: OpSize, Path: f.name()}, func() (err error) {
		size, err = f.inner.Size()
		return err
	})
	return size, err
}

func (f *hookedFile) Block() int64 { return f.inner.Block() }

func (f *hookedFile) Close() error {
	err := f.fs.do(Op{Kind: OpClose, Path: f.name()}, f.inner.Close)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	delete(f.fs.open, f)
	return err
}

func (f *hookedFile) name() string {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.open[f]
}
