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
