//go:build !linux

package vfs

import "os"

// fdatasync is a full fsync here: os.File.Sync also asks the drive to empty its cache on darwin.
func fdatasync(f *os.File) error { return f.Sync() }

// fallocate is not known here; the caller writes zeros.
func fallocate(*os.File, int64) (bool, error) { return false, nil }
