package member

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

// Usage is what a process has used so far.
type Usage struct {
	CPU      time.Duration // user and system
	Written  int64         // bytes it has caused to be written to disk
	Switches int64         // of its threads, voluntary: each is a wait
	Calls    int64         // its calls of read and write, sockets included
}

// Usage reads what the member has used.
func (m *Member) Usage() (u Usage, err error) {
	pid := m.PID()
	if u.Written, err = procField(pid, "io", "write_bytes"); err != nil {
		return u, err
	}
	for _, name := range []string{"syscr", "syscw"} {
		n, err := procField(pid, "io", name)
		if err != nil {
			return u, err
		}
		u.Calls += n
	}
	if u.Switches, err = contextSwitches(pid); err != nil {
		return u, err
	}
	u.CPU, err = ProcessCPU(pid)
	return u, err
}

// ProcessCPU is the CPU time of a process in nanoseconds, ended threads
// included, as the scheduler counts it; the clock that clock_getcpuclockid(3)
// answers. Where it cannot be read, /proc/PID/stat is, in ticks of 10 ms.
func ProcessCPU(pid int) (time.Duration, error) {
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

// PID is the process' ID; the member must run.
func (m *Member) PID() int { return m.cmd.Process.Pid }

// Written is how many bytes the member has caused to be written to disk.
func (m *Member) Written() (int64, error) { return Written(m.PID()) }

// Written is how many bytes a process has caused to be written to disk.
func Written(pid int) (int64, error) { return procField(pid, "io", "write_bytes") }

// RSS is the resident memory in bytes.
func (m *Member) RSS() (int64, error) {
	kb, err := procField(m.PID(), "status", "VmRSS")
	return kb << 10, err
}

// Peak is the highest RSS since the last ResetPeak.
func (m *Member) Peak() (int64, error) {
	kb, err := procField(m.PID(), "status", "VmHWM")
	return kb << 10, err
}

// ResetPeak has Peak begin anew.
func (m *Member) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.PID()), []byte("5"), 0)
}

// Allocated is what a folder takes on disk: blocks, not lengths of files.
func Allocated(dir string) (sum int64, err error) {
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
