package backend

import "golang.org/x/sys/unix"

// unlock lets the mapped file out of a lock on all of the process's memory: forget could not give its pages back.
func unlock(data uintptr, size int64) {
	if data == 0 || size == 0 {
		return
	}
	// An error means that a part is not mapped; then more stays locked than needs to.
	_, _, _ = unix.Syscall(unix.SYS_MUNLOCK, data, uintptr(size), 0)
}
