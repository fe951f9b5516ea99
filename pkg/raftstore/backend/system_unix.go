//go:build linux || darwin || freebsd

package backend

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskFree is how many bytes the disk of a file has left for this process.
func diskFree(path string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(filepath.Dir(path), &s) != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// unlinked tells whether a file has no name any more.
func unlinked(f *os.File) bool {
	var s unix.Stat_t
	return unix.Fstat(int(f.Fd()), &s) == nil && s.Nlink == 0
}
