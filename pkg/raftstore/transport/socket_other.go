//go:build !linux

package transport

import "syscall"

// limitUnsent does nothing here; see the one for Linux.
func limitUnsent(_, _ string, _ syscall.RawConn) error { return nil }
