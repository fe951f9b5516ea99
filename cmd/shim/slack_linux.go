package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// slackDefault is what the kernel gives a process whose timer slack nobody has
	// set, in nanoseconds, slackWanted what shim takes in its place.
	slackDefault = 50_000
	slackWanted  = 500_000
	// slackTaken is the variable that tells the program that it was executed again.
	// It is gone before anything else looks at the environment.
	slackTaken = "SHIM_TIMER_SLACK_TAKEN"
)

// takeSlack executes the program again, as the same process, with a longer timer
// slack, which is how late the kernel may end a sleep. Go's monitor thread sleeps
// for 20 µs over and over while a goroutine is in a system call, and a sync of
// the log is a long one: most of what a quiet cluster takes is these naps
// (docs/decisions/performance.md). That thread is there before the first line of
// the program, and only one with CAP_SYS_NICE may set the slack of another; but
// threads have that of who made them, and it outlives execve.
//
// What somebody has set stays, and so does that of a process with one processor:
// there everything waits until the monitor has seen that a sync is a long one.
// Where anything fails the program goes on as it is.
func takeSlack() {
	again := os.Getenv(slackTaken) != ""
	_ = os.Unsetenv(slackTaken)
	if again {
		return
	}
	path, ok := ownFile()
	if !ok || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	runtime.LockOSThread() // the thread that calls execve is the one that is left
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || slack != slackDefault {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, slackWanted, 0, 0, 0) != nil {
		return
	}
	_ = executeAgain(path)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, slackDefault, 0, 0, 0)
}

// executeAgain answers only if it fails. The limit of open files is then as it was:
// Go raises it when a program begins, and gives it back before execve.
func executeAgain(path string) error {
	var files syscall.Rlimit
	known := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	err := syscall.Exec(path, os.Args, append(os.Environ(), slackTaken+"=1"))
	if known == nil {
		err = errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
	}
	return err
}

// ownFile is a path of the program that runs, the one that it was called by if
// that leads there, so that the process keeps its name; false if there is none.
func ownFile() (path string, ok bool) {
	runs, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", false
	}
	called, _ := exec.LookPath(os.Args[0])
	linked, _ := os.Executable()
	for _, path := range []string{called, linked} {
		if there, err := os.Stat(path); err == nil && os.SameFile(runs, there) {
			return path, true
		}
	}
	return "", false
}
