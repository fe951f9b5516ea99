//go:build !race

package eagerio

import (
	"syscall"
	"unsafe"
)

// Read reads once from a descriptor that does not block. The error is a syscall.Errno: EAGAIN, if there is nothing to read yet.
func Read(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > rawBytesMax {
		return syscall.Read(int(fd), p)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return outcome(n, errno)
}

// Write writes once to a descriptor that does not block, and answers how much was taken. The error is as that of Read.
func Write(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > rawBytesMax {
		return syscall.Write(int(fd), p)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return outcome(n, errno)
}

func outcome(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
