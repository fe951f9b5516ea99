package backend

import (
	"os"

	"golang.org/x/sys/unix"
)

// willNeed has the kernel begin to read a part of a file. It waits for no disk, unless its queue is full.
func willNeed(f *os.File, at, n int64) {
	// An error means that whoever reads the part waits for the disk himself.
	_ = unix.Fadvise(int(f.Fd()), at, n, unix.FADV_WILLNEED)
}

// readsAtRandom has the kernel read no more of a file than what it is asked for.
func readsAtRandom(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
}
