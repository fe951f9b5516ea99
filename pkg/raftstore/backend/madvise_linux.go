package backend

import "golang.org/x/sys/unix"

// forget lets the pages of the mapped file leave this process's memory; they are read again when they are needed.
func forget(data uintptr, size int64) {
	if data == 0 || size == 0 {
		return
	}
	// An error changes nothing but how much memory the process is said to use.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, data, uintptr(size), unix.MADV_DONTNEED)
}
