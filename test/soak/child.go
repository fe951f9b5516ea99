package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubeshim/shim/test/soak/ledger"
)

// said is a line that a child writes: one of these.
type said struct {
	List     *saidList        `json:"list,omitempty"`
	Watch    *ledger.Follower `json:"watch,omitempty"`
	Snapshot int64            `json:"snapshot,omitempty"` // bytes
	Problem  string           `json:"problem,omitempty"`
}

type saidList struct {
	Prefix   string        `json:"prefix"`
	Revision int64         `json:"revision"`
	Digest   ledger.Digest `json:"digest"`
}

// role is what a child does until its standard input ends.
type role func(ctx context.Context, addr string, every time.Duration, via *link, say func(said)) error

var roles = map[string]role{"lists": listStorms, "watchers": slowWatchers, "snapshots": snapshots}

// beChild is a child's main.
func beChild(name, addr string, every time.Duration, via *link) error {
	if err := standBack(os.Getpid()); err != nil { // threads that came before the parent had done it
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	lines := make(chan said)
	written := make(chan error, 1)
	go func() {
		out := json.NewEncoder(os.Stdout)
		var err error
		for line := range lines {
			if e := out.Encode(line); err == nil {
				err = e
			}
		}
		written <- err
	}()
	run, ok := roles[name]
	if !ok {
		return fmt.Errorf("no such role: %q", name)
	}
	err := run(ctx, addr, every, via, func(s said) { lines <- s })
	if err != nil {
		lines <- said{Problem: err.Error()}
	}
	close(lines)
	return <-written
}

// standBack has a process run only where nobody else wants to: in truth its work is
// that of other machines, and must not be what the load's latencies show. Threads
// that come later inherit it.
func standBack(process int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", process))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		idle := &unix.SchedAttr{Policy: unix.SCHED_IDLE}
		if err := unix.SchedSetAttr(id, idle, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stand back: %w", err)
		}
	}
	return nil
}

// runChild has a process of its own disturb until ctx ends, and hands on what
// it says; it returns when the process has ended.
func runChild(ctx context.Context, name, addr string, every time.Duration, link int, hear func(said)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-role", name, "-at", addr, "-every", every.String(), "-link", strconv.Itoa(link))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	// At once: what a program does before its main takes as long as ten writes.
	if err := standBack(cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	stop := context.AfterFunc(ctx, func() { stdin.Close() })
	defer stop()
	in := bufio.NewReader(stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		var s said
		if err := json.Unmarshal(line, &s); err != nil {
			return fmt.Errorf("%s says %q: %w", name, line, err)
		}
		hear(s)
	}
	return cmd.Wait()
}
