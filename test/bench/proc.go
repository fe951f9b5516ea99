package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of the CPU times in /proc/PID/stat.
const clockTick = 10 * time.Millisecond

// usage is what a server, and the client beside it, have used so far.
type usage struct {
	at       time.Time
	cpu      time.Duration // of the server, user and system
	client   time.Duration // of this process
	written  int64         // bytes the server has caused to be written to disk
	switches int64         // of its threads, voluntary: each is a wait
	calls    int64         // its calls of read and write, sockets included
}

func (s *server) usage() (sum usage, err error) {
	sum.at = time.Now()
	if sum.client, err = processCPU(os.Getpid()); err != nil {
		return sum, err
	}
	for _, m := range s.members {
		u, err := m.usage()
		if err != nil {
			return sum, err
		}
		sum.cpu += u.cpu
		sum.written += u.written
		sum.switches += u.switches
		sum.calls += u.calls
	}
	return sum, nil
}

func (m *member) usage() (u usage, err error) {
	pid := m.pid()
	if u.written, err = procField(pid, "io", "write_bytes"); err != nil {
		return u, err
	}
	for _, name := range []string{"syscr", "syscw"} {
		n, err := procField(pid, "io", name)
		if err != nil {
			return u, err
		}
		u.calls += n
	}
	if u.switches, err = contextSwitches(pid); err != nil {
		return u, err
	}
	u.cpu, err = processCPU(pid)
	return u, err
}

func (u usage) since(before usage) usage {
	return usage{
		at: u.at, cpu: u.cpu - before.cpu, client: u.client - before.client, written: u.written - before.written,
		switches: u.switches - before.switches, calls: u.calls - before.calls,
	}
}

// processCPU is the CPU time of a process in nanoseconds, ended threads
// included, as the scheduler counts it; the clock that clock_getcpuclockid(3)
// answers. Where it cannot be read, /proc/PID/stat is, in ticks of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err == nil {
		return time.Duration(ts.Nano()), nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat adds up fields 14 and 15, utime and stime. The second field, the
// name, may hold blanks and parentheses.
func parseStat(b []byte) (time.Duration, error) {
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("short /proc/PID/stat")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}

func contextSwitches(pid int) (sum int64, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		n, err := parseField(b, "voluntary_ctxt_switches")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// procField reads one number of a "name: number" file below /proc/PID.
func procField(pid int, file, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	return parseField(b, name)
}

func parseField(b []byte, name string) (int64, error) {
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				return strconv.ParseInt(fields[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("no %s in a file below /proc/PID", name)
}

func (m *member) pid() int { return m.cmd.Process.Pid }

// sumOf adds up a figure of the members.
func (s *server) sumOf(of func(*member) (int64, error)) (sum int64, err error) {
	for _, m := range s.members {
		n, err := of(m)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (s *server) written() (int64, error) {
	return s.sumOf(func(m *member) (int64, error) { return procField(m.pid(), "io", "write_bytes") })
}

// rss is the resident memory in bytes, peak the highest since resetPeak.
func (s *server) rss() (int64, error) {
	kb, err := s.sumOf(func(m *member) (int64, error) { return procField(m.pid(), "status", "VmRSS") })
	return kb << 10, err
}

func (s *server) peak() (int64, error) {
	kb, err := s.sumOf(func(m *member) (int64, error) { return procField(m.pid(), "status", "VmHWM") })
	return kb << 10, err
}

func (s *server) resetPeak() error {
	_, err := s.sumOf(func(m *member) (int64, error) {
		return 0, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.pid()), []byte("5"), 0)
	})
	return err
}

// disk is what the data dirs take.
func (s *server) disk() (int64, error) {
	return s.sumOf(func(m *member) (int64, error) { return allocated(m.dir) })
}

// allocated is what a folder takes on disk: blocks, not lengths of files.
func allocated(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // a file that went while we walked
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}
