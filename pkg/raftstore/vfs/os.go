package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// OS is the real file system.
var OS FS = osFS{}

const (
	dirMode  = 0o700 // as etcd's data directory
	fileMode = 0o600
)

type osFS struct{}

type osFile struct{ *os.File }

func (osFile) Block() int64 { return 1 }

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

func (osFS) OpenReadOnly(name string) (File, error) { return openOS(name, os.O_RDONLY) }

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFS) MkdirAll(dir string) error { return mkdirAll(dir, o.SyncDir) }

// mkdirAll walks up to the first directory that is there and comes back down, syncing each parent of a new one, and that of the one it has
// found: who made it may have ended before its name was durable.
func mkdirAll(dir string, syncDir func(string) error) error {
	parent := filepath.Dir(dir)
	st, err := os.Stat(dir)
	if err == nil {
		if !st.IsDir() {
			return &os.PathError{Op: "mkdir", Path: dir, Err: errors.New("not a directory")}
		}
		if err := syncDir(parent); !cannotSync(err) {
			return err
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if parent != dir {
		if err := mkdirAll(parent, syncDir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// cannotSync: the directory is not one that this program could have made a name in, or its file system does not sync directories.
func cannotSync(err error) bool {
	for _, known := range []error{os.ErrPermission, errors.ErrUnsupported, syscall.EINVAL, syscall.EROFS} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) Stat(name string) (Info, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	if st.IsDir() {
		return Info{IsDir: true}, nil
	}
	return Info{Size: st.Size()}, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return fileLock{f}, nil
}

// fileLock is a lock that ends with Close, and not later: a process that is just being started may hold a copy of the descriptor until
// it has become another program.
type fileLock struct{ *os.File }

func (l fileLock) Close() error {
	return errors.Join(unlockFile(l.File), l.File.Close())
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Sync() error { return fdatasync(f.File) }

func (f osFile) Preallocate(size int64) error {
	done, err := fallocate(f.File, size)
	if done || err != nil {
		return err
	}
	return zeroExtend(f, size)
}

// zeroExtend is Preallocate where the file system has no fallocate: it writes the zeros.
func zeroExtend(f File, size int64) error {
	from, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(max(size-from, 0), zeroChunkBytes))
	for from < size {
		n, err := f.WriteAt(zeros[:min(size-from, zeroChunkBytes)], from)
		if err != nil {
			return fmt.Errorf("preallocate by writing zeros: %w", err)
		}
		from += int64(n)
	}
	return nil
}
