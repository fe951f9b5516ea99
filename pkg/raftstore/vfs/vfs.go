package vfs

import (
	"errors"
	"io"
	"syscall"
)

// FS is the file system as the log sees it. Names are slash-separated paths; errors satisfy errors.Is with the values of
// io/fs (ErrNotExist, ErrExist, ErrPermission) and, for a full disk, IsNoSpace.
type FS interface {
	// Create makes an empty file for reading and writing, or empties the one that is there.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenDirect opens an existing file for reading and writing past the page cache, where the file system can; where it
	// cannot, the file is an ordinary one. In both cases reads and writes are of whole blocks from aligned memory: offset,
	// length and address are multiples of File.Block (AlignedBuffer), else they fail with EINVAL. A written block still
	// needs Sync to be durable. Of a write that fails any blocks may be written, whatever number it answers. Who reads the file otherwise sees what is written.
	OpenDirect(name string) (File, error)
	// OpenReadOnly opens an existing file; writing to it fails.
	OpenReadOnly(name string) (File, error)
	// MkdirAll makes a directory and those above it, mode 0700. Each name that is new is durable when it returns, also
	// if an earlier call made it and was cut off by the end of its process.
	MkdirAll(dir string) error
	// Remove removes a file or an empty directory. Durable after SyncDir.
	Remove(name string) error
	// Rename moves a file within one directory, replacing what has the new name. Atomic; durable after SyncDir.
	Rename(oldName, newName string) error
	// List gives the names (not paths) in a directory, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file or a directory.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock creates the file if need be and takes an exclusive lock on it until Close, or fails at once with ErrLocked.
	Lock(name string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes contents and size durable (fdatasync). After a failure nothing is known about what is on disk; the
	// caller must not call Sync again and believe it.
	Sync() error
	// Preallocate makes the file at least size bytes long, with disk space behind every byte up to there; new bytes read
	// as zeros. It fails as a whole with an error for which IsNoSpace is true, the file's size then being unspecified.
	Preallocate(size int64) error
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Size is the size in bytes.
	Size() (int64, error)
	// Block is the unit in which a file from OpenDirect is read and written: SectorBytes where the disk takes sectors of that size, at
	// most DirectBytes. 1 for other files.
	Block() int64
}

// Info is what Stat knows about a name.
type Info struct {
	Size  int64 // bytes; 0 for a directory
	IsDir bool
}

// ErrLocked says that somebody else, maybe another process, holds the lock.
var ErrLocked = errors.New("file is locked by another process")

// IsNoSpace tells whether an error means that the disk, or the caller's share of it, is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
