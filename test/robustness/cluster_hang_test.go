//go:build robustness

package robustness

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hangVariable has this program hang the disk of the process that it names.
const hangVariable = "ROBUSTNESS_HANG"

func init() {
	if pid, err := strconv.Atoi(os.Getenv(hangVariable)); err == nil {
		fmt.Fprintln(os.Stderr, "hang:", trapSyncs(pid))
		os.Exit(1)
	}
}

// hangDisk has every fsync and fdatasync of a member hang that it begins from now on, and returns when the first one does. release lets them
// go on. It is a debugger in a process of its own, with whose end the kernel lets all go on that it has stopped.
func (m *member) hangDisk() (release func()) {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", hangVariable, m.cmd.Process.Pid))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	release = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	m.t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		m.t.Fatalf("the disk of %s does not hang: %q, %v", m.name, line, err)
	}
	return release
}

// trapSyncs stops the threads of a process where they begin a sync, and says so on stdout.
func trapSyncs(pid int) error {
	runtime.LockOSThread() // the thread is the debugger
	if err := seize(pid); err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case !ws.Stopped():
			continue // a thread has ended
		}
		signal := int(ws.StopSignal())
		switch {
		case signal == int(unix.SIGTRAP)|0x80: // at a system call
			if beginsSync(tid) {
				fmt.Println("hangs")
				continue
			}
			signal = 0
		case ws>>16 != 0: // an event of the debugger's own: seized, or a new thread
			signal = 0
		}
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("go on: %w", err)
		}
	}
}

// seize becomes the debugger of all threads of a process, and of those that they will start.
func seize(pid int) error {
	seized := make(map[int]bool)
	for more := true; more; {
		more = false
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil || seized[tid] {
				continue
			}
			seized[tid], more = true, true
			const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE
			_, _, failed := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, options, 0, 0)
			if failed == unix.EPERM { // a new thread of one that is seized already is, too
				continue
			}
			if failed != 0 && failed != unix.ESRCH {
				return fmt.Errorf("seize thread %d: %w", tid, failed)
			}
			if err := unix.PtraceInterrupt(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("interrupt thread %d: %w", tid, err)
			}
		}
	}
	if len(seized) == 0 {
		return fmt.Errorf("no process %d: %w", pid, syscall.ESRCH)
	}
	return nil
}

// syscallInfo is the beginning of the kernel's ptrace_syscall_info.
type syscallInfo struct {
	op      uint8
	_       [3]uint8
	arch    uint32
	ip, sp  uint64
	number  uint64
	payload [6]uint64
}

// beginsSync is true for a thread that stands before an fsync.
func beginsSync(tid int) bool {
	const entry = 1
	var info syscallInfo
	_, _, failed := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	return failed == 0 && info.op == entry && (info.number == unix.SYS_FSYNC || info.number == unix.SYS_FDATASYNC)
}

// TestClusterHungDisk: a leader whose disk hangs gives the leadership away, and a follower's holds nobody up.
func TestClusterHungDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	l.more(200)
	old := c.leader()
	release := old.hangDisk()
	took := l.firstWrite(c.others(old))
	t.Logf("the first write took %v; %s leads, %s did", took, c.leader(c.others(old)...).name, old.name)
	l.more(200)
	release()
	l.more(200)
	m := c.others(c.leader())[0]
	release = m.hangDisk()
	l.more(200)
	release()
	l.finish()
}
