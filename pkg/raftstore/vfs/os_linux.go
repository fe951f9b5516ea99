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

// directBlock is what offsets and addresses have to be multiples of, 0 if the kernel (before 6.1) or the file system does not say.
func directBlock(f *os.File) (block int64) {
	_ = ignoringEINTR(f, "statx", func(fd int) error {
		var st unix.Statx_t
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
		if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0 {
			block = max(int64(st.Dio_offset_align), int64(st.Dio_mem_align), SectorBytes)
		}
		return err
	})
	return block
}

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
