package transport

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnsent makes the kernel take no more of a connection's data than it can send soon. Without it, megabytes of appends may be in
// front of a heartbeat in the socket's buffer. A kernel that cannot is left alone.
func limitUnsent(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytesMax)
	})
}

// canWriteNow: writeNow works here.
const canWriteNow = true

// writeNow writes what the kernel takes without waiting.
func writeNow(c syscall.RawConn, b []byte) (n int, err error) {
	var failed error
	err = c.Write(func(fd uintptr) bool {
		n, failed = unix.Write(int(fd), b)
		return true
	})
	if err == nil && failed != unix.EAGAIN && failed != unix.EINTR {
		err = failed
	}
	return max(n, 0), err
}
