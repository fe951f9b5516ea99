//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// openDirectFlag: what other systems have in its place is not used.
const openDirectFlag = 0

func directBlock(*os.File) int64 { return 0 }

func setBuffered(*os.File) error { return errors.ErrUnsupported }

// fdatasync is a full fsync here: os.File.Sync also asks the drive to empty its cache on darwin.
func fdatasync(f *os.File) error { return f.Sync() }

// fallocate is not known here; the caller writes zeros.
func fallocate(*os.File, int64) (bool, error) { return false, nil }
