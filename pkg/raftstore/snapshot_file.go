package raftstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// sectorBytes: a bbolt file has a multiple of it, so what is left over is a checksum. etcd tells the two apart in the same way.
const sectorBytes = 512

// snapshotFile is a bbolt file, maybe with its SHA-256 behind it.
type snapshotFile struct {
	file vfs.File
	size int64  // without the checksum
	sum  []byte // nil: there is none
}

// openSnapshot opens the file; the caller closes it.
func openSnapshot(filesystem vfs.FS, name string) (s snapshotFile, err error) {
	if s.file, err = filesystem.OpenReadOnly(name); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			s.file.Close()
		}
	}()
	if s.size, err = s.file.Size(); err != nil {
		return s, err
	}
	if s.size%sectorBytes == sha256.Size {
		s.size -= sha256.Size
		s.sum = make([]byte, sha256.Size)
		if _, err := s.file.ReadAt(s.sum, s.size); err != nil {
			return s, fmt.Errorf("read the checksum: %w", err)
		}
	}
	if s.size == 0 {
		return s, &CorruptError{File: name, Offset: 0, Reason: "it is empty"}
	}
	return s, nil
}

// content reads the file without the checksum.
func (s snapshotFile) content() io.Reader { return io.NewSectionReader(s.file, 0, s.size) }

// VerifySnapshot compares a snapshot with the checksum behind it. Errors: ErrNoChecksum, ErrWrongChecksum, a *CorruptError for an empty
// file, those of reading it.
func VerifySnapshot(filesystem vfs.FS, name string) error {
	s, err := openSnapshot(filesystem, name)
	if err != nil {
		return err
	}
	defer s.file.Close()
	if s.sum == nil {
		return ErrNoChecksum
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, s.content()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if !bytes.Equal(sum.Sum(nil), s.sum) {
		return ErrWrongChecksum
	}
	return nil
}

// SnapshotStatus says what a snapshot holds. One without a checksum, as the database of a stopped member, is taken too.
func SnapshotStatus(filesystem vfs.FS, name string) (backend.Status, error) {
	if err := VerifySnapshot(filesystem, name); err != nil && !errors.Is(err, ErrNoChecksum) {
		return backend.Status{}, err
	}
	db, err := backend.Open(name, backend.Options{ReadOnly: true})
	if err != nil {
		return backend.Status{}, typedError(Dirs{}, err)
	}
	status, err := db.Status()
	return status, typedError(Dirs{}, errors.Join(err, db.Close()))
}

// removeAll removes a directory with all that is in it. One that is not there is no error.
func removeAll(filesystem vfs.FS, name string) error {
	info, err := filesystem.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir {
		names, err := filesystem.List(name)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := removeAll(filesystem, path.Join(name, n)); err != nil {
				return err
			}
		}
	}
	return filesystem.Remove(name)
}
