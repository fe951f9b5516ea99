package main

import (
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// The policy for the garbage collector, all of it:
//
//   - GOGC and GOMEMLIMIT of the environment win, as everywhere in Go.
//   - Otherwise the collector runs when the heap has grown by gcPercent. The
//     store is most of the heap and lives long: a smaller number costs CPU for
//     marking it again and again, a larger one memory that is never used.
//   - In a container with a memory limit the collector works harder from
//     memoryLimitPercent of that limit on, rather than being killed at it.
const (
	gcPercent          = 100
	memoryLimitPercent = 90
)

// cgroupLimitFiles tell a container's memory limit: cgroup 2, cgroup 1.
var cgroupLimitFiles = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

func setMemoryPolicy(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := cgroupLimit(cgroupLimitFiles); ok {
		soft := limit / 100 * memoryLimitPercent
		debug.SetMemoryLimit(soft)
		log.Info("memory limit of the container", "limit-bytes", limit, "soft-limit-bytes", soft)
	}
}

// cgroupLimit is the first limit that one of the files tells. No limit is
// "max", or a number beyond any machine.
func cgroupLimit(files []string) (int64, bool) {
	const beyond = 1 << 50
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil && n > 0 && n < beyond {
			return n, true
		}
	}
	return 0, false
}
