//go:build !linux || race

package eagerio

import "syscall"

// Read is as the one for Linux, but for what it costs; and the race detector sees it: what is sent happens before what is received.
func Read(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

// Write is as the one for Linux, but for what it costs.
func Write(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
