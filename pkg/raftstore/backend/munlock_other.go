//go:build !linux

package backend

func unlock(uintptr, int64) {}
