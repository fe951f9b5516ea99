package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockMemory is --memory-mlock: what the process touches of its memory stays in
// RAM. The database's mapping is taken out where it is made (package backend): it
// is a window on the page cache, and would come a second time what the heap has.
//
// Memory that is locked counts against RLIMIT_MEMLOCK with all that is reserved,
// and one that ends the process in the middle of its life is worse than none; so
// nothing but no limit will do.
func lockMemory() error {
	if limit, ok := lockLimit(); !ok {
		return fmt.Errorf("--memory-mlock: %d bytes may be locked, and it has to be without a limit: ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_IPC_LOCK", limit)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("--memory-mlock: lock the memory: %w", err)
	}
	return nil
}

// lockLimit is how many bytes the process may lock; ok: without a limit.
func lockLimit() (bytes uint64, ok bool) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), limit.Cur == unix.RLIM_INFINITY || mayLock()
}

// mayLock says whether the process has CAP_IPC_LOCK.
func mayLock() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	caps, err := effectiveCapabilities(string(status))
	return err == nil && caps&(1<<unix.CAP_IPC_LOCK) != 0
}

func effectiveCapabilities(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("no capabilities")
}
