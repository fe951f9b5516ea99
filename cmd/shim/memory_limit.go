package main

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// memoryLimit is what the process may use.
type memoryLimit struct {
	bytes  int64 // 0: not known
	hard   bool  // whoever exceeds it is killed, or does not do as it was told
	source string
}

// findMemoryLimit is what was asked for, or the limit of the cgroup, or half of
// the machine's memory.
func findMemoryLimit(asked int64) memoryLimit {
	if asked > 0 {
		return memoryLimit{bytes: asked, hard: true, source: "flag"}
	}
	root := os.DirFS("/")
	if n, ok := cgroupLimit(root); ok {
		return memoryLimit{bytes: n, hard: true, source: "cgroup"}
	}
	return memoryLimit{bytes: machineMemory(root) / 2, source: "machine"}
}

// cgroupLimit is the smallest memory limit of the process's cgroup and of those
// around it. In a container the file system begins at its own one.
func cgroupLimit(root fs.FS) (int64, bool) {
	const v1, v2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
	limit := int64(math.MaxInt64)
	look := func(dir, group, file string) {
		for {
			limit = min(limit, readLimit(root, path.Join(dir, group, file)))
			if group == "/" || group == "." {
				return
			}
			group = path.Dir(group)
		}
	}
	self, _ := fs.ReadFile(root, "proc/self/cgroup") // of lines ID:CONTROLLERS:GROUP, version 2 has no controllers
	for lines := bufio.NewScanner(bytes.NewReader(self)); lines.Scan(); {
		f := strings.SplitN(lines.Text(), ":", 3)
		switch {
		case len(f) != 3:
		case f[1] == "":
			look(v2, path.Clean(f[2]), "memory.max")
		case f[1] == "memory":
			look(v1, path.Clean(f[2]), "memory.limit_in_bytes")
		}
	}
	look(v2, "/", "memory.max")
	look(v1, "/", "memory.limit_in_bytes")
	return limit, limit < math.MaxInt64
}

// readLimit reads a limit. None is "max", or a number beyond any machine.
func readLimit(root fs.FS, file string) int64 {
	const beyond = 1 << 50
	data, err := fs.ReadFile(root, file)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n <= 0 || n >= beyond {
		return math.MaxInt64
	}
	return n
}

// machineMemory is all of the machine's memory in bytes, 0 if that is not known.
func machineMemory(root fs.FS) int64 {
	data, _ := fs.ReadFile(root, "proc/meminfo")
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
