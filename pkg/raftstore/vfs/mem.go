package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"sync"
	"syscall"
)

// Mem is a file system in memory which keeps apart what is durable and what is not. Its zero value is not usable; call
// NewMem. The root "/" and the current directory "." exist from the start.
type Mem struct {
	mu       sync.Mutex
	names    map[string]*memNode // what a caller sees now
	durable  map[string]*memNode // what names are on disk
	pending  []nameOp            // name changes that are not on disk, oldest first
	locks    map[string]bool
	capacity int64 // bytes; 0 is no limit
}

// memNode is a file or a directory. Mem.mu guards all of it.
type memNode struct {
	dir     bool
	data    []byte   // what a reader sees now
	synced  []byte   // what is on disk
	pending []dataOp // changes of data that are not on disk, oldest first
}

// nameOp is one unsynced change in a directory: name gets node (nil: goes away), and, for a rename, gone goes away with it.
type nameOp struct {
	dir  string
	name string
	node *memNode
	gone string
}

// dataOp is one unsynced change of a file: a write of data at offset, or, if data is nil, a new size.
type dataOp struct {
	offset int64
	data   []byte
}

// NewMem makes an empty file system.
func NewMem() *Mem {
	m := &Mem{names: map[string]*memNode{}, durable: map[string]*memNode{}, locks: map[string]bool{}}
	for _, root := range []string{"/", "."} {
		n := &memNode{dir: true}
		m.names[root], m.durable[root] = n, n
	}
	return m
}

// SetCapacity limits the sum of all file sizes to n bytes; what would need more fails with ENOSPC. 0 takes the limit away.
// A limit below what is in use frees nothing.
func (m *Mem) SetCapacity(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = n
}

// Used is the sum of all file sizes in bytes.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used()
}

func (m *Mem) used() int64 {
	var sum int64
	for _, n := range m.names {
		sum += int64(len(n.data))
	}
	return sum
}

func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	if err := m.wantParent("create", name); err != nil {
		return nil, err
	}
	n := m.names[name]
	switch {
	case n == nil:
		n = &memNode{}
		m.names[name] = n
		m.pending = append(m.pending, nameOp{dir: path.Dir(name), name: name, node: n})
	case n.dir:
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
	default:
		n.resize(0)
	}
	return &memFile{fs: m, name: name, node: n}, nil
}

func (m *Mem) Open(name string) (File, error) { return m.open(name, memFile{}) }

func (m *Mem) OpenDirect(name string) (File, error) { return m.open(name, memFile{direct: true}) }

func (m *Mem) OpenReadOnly(name string) (File, error) { return m.open(name, memFile{readOnly: true}) }

// open gives the file with the properties of as.
func (m *Mem) open(name string, as memFile) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	n, err := m.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	as.fs, as.name, as.node = m, name, n
	return &as, nil
}

func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mkdirAll(path.Clean(dir))
}

func (m *Mem) mkdirAll(dir string) error {
	if n := m.names[dir]; n != nil {
		if !n.dir {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if err := m.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	n := &memNode{dir: true}
	m.names[dir] = n
	m.durable[dir] = n
	return nil
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	n, err := m.lookup("remove", name)
	if err != nil {
		return err
	}
	if n.dir && len(m.list(name)) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	delete(m.names, name)
	m.pending = append(m.pending, nameOp{dir: path.Dir(name), name: name})
	return nil
}

func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldName, newName = path.Clean(oldName), path.Clean(newName)
	n, err := m.lookup("rename", oldName)
	if err != nil {
		return err
	}
	if path.Dir(oldName) != path.Dir(newName) {
		return &fs.PathError{Op: "rename", Path: newName, Err: syscall.EXDEV}
	}
	delete(m.names, oldName)
	m.names[newName] = n
	m.pending = append(m.pending, nameOp{dir: path.Dir(newName), name: newName, node: n, gone: oldName})
	return nil
}

func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = path.Clean(dir)
	n, err := m.lookup("list", dir)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: syscall.ENOTDIR}
	}
	return m.list(dir), nil
}

func (m *Mem) list(dir string) []string {
	names := []string{}
	for name := range m.names {
		if name != dir && path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	sort.Strings(names)
	return names
}

func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup("stat", path.Clean(name))
	if err != nil {
		return Info{}, err
	}
	return Info{Size: int64(len(n.data)), IsDir: n.dir}, nil
}

func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = path.Clean(dir)
	if _, err := m.lookup("sync directory", dir); err != nil {
		return err
	}
	rest := m.pending[:0]
	for _, op := range m.pending {
		if op.dir == dir {
			op.applyTo(m.durable)
		} else {
			rest = append(rest, op)
		}
	}
	m.pending = rest
	return nil
}

func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.Open(name)
	if err != nil {
		f, err = m.Create(name)
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	if m.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	m.locks[name] = true
	return &memLock{fs: m, name: name, file: f}, nil
}

func (m *Mem) lookup(op, name string) (*memNode, error) {
	n := m.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

func (m *Mem) wantParent(op, name string) error {
	p := m.names[path.Dir(name)]
	if p == nil {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	if !p.dir {
		return &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return nil
}

func (op nameOp) applyTo(names map[string]*memNode) {
	if op.gone != "" {
		delete(names, op.gone)
	}
	if op.node == nil {
		delete(names, op.name)
	} else {
		names[op.name] = op.node
	}
}

type memLock struct {
	fs   *Mem
	name string
	file File
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	delete(l.fs.locks, l.name)
	l.fs.mu.Unlock()
	return l.file.Close()
}
