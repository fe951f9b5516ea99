package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProcessTakesSlack: the member has the longer timer slack in all its threads, under the process ID that it was started with, with its
// name, arguments and environment. A slack that was set stays, as does that of a process with one processor.
func TestProcessTakesSlack(t *testing.T) {
	t.Setenv("SHIM_TEST_SLACK", "kept")
	for name, c := range map[string]struct {
		processors string
		set, want  int
	}{
		"nobody set one": {"2", slackDefault, slackWanted},
		"set":            {"2", slackDefault + 1, slackDefault + 1},
		"one processor":  {"1", slackDefault, slackDefault},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMAXPROCS", c.processors)
			p := startWithSlack(t, c.set)
			pid := p.cmd.Process.Pid
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil || len(threads) < 2 {
				t.Fatalf("threads: %v %v", threads, err)
			}
			for _, thread := range threads {
				got, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
				if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
					continue // not without CAP_SYS_NICE; the thread is gone
				}
				if err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(c.want) {
					t.Errorf("thread %s: %s %v, want %d", thread.Name(), got, err, c.want)
				}
			}
			if got, want := strings.TrimSpace(readFile(t, fmt.Sprintf("/proc/%d/comm", pid))), filepath.Base(binary); got != want {
				t.Errorf("the process is called %q, want %q", got, want)
			}
			args := strings.Split(strings.TrimSuffix(readFile(t, fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"), "\x00")
			if !slices.Equal(args, p.cmd.Args) {
				t.Errorf("arguments %q, want %q", args, p.cmd.Args)
			}
			env := readFile(t, fmt.Sprintf("/proc/%d/environ", pid))
			if got, want := strings.Contains(env, slackTaken+"=1\x00"), c.set != c.want; got != want {
				t.Errorf("executed again: %t, want %t", got, want)
			}
			if !strings.Contains(env, "SHIM_TEST_SLACK=kept\x00") {
				t.Errorf("environment %q", env)
			}
			if code := p.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// startWithSlack has the process inherit a timer slack.
func startWithSlack(t *testing.T, nanoseconds int) *process {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(nanoseconds), 0, 0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, t.TempDir())
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(was), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	p.await()
	return p
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestExecuteAgainFails: the process may have as many files open as before.
func TestExecuteAgainFails(t *testing.T) {
	const soft = 700
	if os.Getenv("SHIM_TEST_SLACK") == "" { // with a soft limit that Go raises
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf(`ulimit -S -n %d && exec "$0" "$@"`, soft), os.Args[0], "-test.run=^TestExecuteAgainFails$", "-test.v")
		cmd.Env = append(os.Environ(), "SHIM_TEST_SLACK=fails")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestExecuteAgainFails") {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil || before.Cur <= soft {
		t.Fatalf("%+v %v, want more than %d", before, err, soft)
	}
	if err := executeAgain(t.TempDir()); !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v, want %v", err, syscall.EACCES)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after != before {
		t.Errorf("%+v %v, want %+v", after, err, before)
	}
}
