package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync leaves out the modification time, so that a write into preallocated, already written blocks costs no journal
// commit.
func fdatasync(f *os.File) error {
	return ignoringEINTR(f, "fdatasync", func(fd int) error { return unix.Fdatasync(fd) })
}

// fallocate reports false where the file system does not know the call.
func fallocate(f *os.File, size int64) (bool, error) {
	err := ignoringEINTR(f, "fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return true, err
}

// openDirectFlag makes reads and writes of the file pass the page cache.
const openDirectFlag = unix.O_DIRECT

// setBuffered takes openDirectFlag back.
func setBuffered(f *os.File) error {
	return ignoringEINTR(f, "fcntl", func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
		}
		return err
	})
}

func ignoringEINTR(f *os.File, op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = conn.Control(func(fd uintptr) {
		for {
			callErr = call(int(fd))
			if callErr != unix.EINTR {
				return
			}
		}
	})
	if err == nil {
		err = callErr
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
