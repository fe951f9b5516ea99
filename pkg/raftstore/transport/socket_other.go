//go:build !linux

package transport

import "syscall"

// limitUnsent does nothing here; see the one for Linux.
func limitUnsent(_, _ string, _ syscall.RawConn) error { return nil }

// canWriteNow: nothing is sent from the goroutine of the caller here.
const canWriteNow = false

func writeNow(syscall.RawConn, []byte) (int, error) { return 0, nil }
