//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// watchEvent is one line of `kubectl get -w --output-watch-events -o json`.
type watchEvent struct {
	Type   string `json:"type"`
	Object object `json:"object"`
}

// follower keeps what a `kubectl get -w` has seen.
type follower struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	events []watchEvent
	live   map[string]watchEvent // by UID
	err    error
}

// follow starts `kubectl get ARGS -w` and reads it until the test ends.
func (c *cluster) follow(args ...string) *follower {
	c.t.Helper()
	f := &follower{done: make(chan struct{}), live: map[string]watchEvent{}}
	f.cmd = exec.Command(c.kubectl, append([]string{"--kubeconfig=" + filepath.Join(c.dir, "kubeconfig"),
		"get", "-w", "--output-watch-events", "-o", "json"}, args...)...)
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go f.read(out)
	c.t.Cleanup(f.stop)
	return f
}

func (f *follower) read(out io.Reader) {
	defer close(f.done)
	dec := json.NewDecoder(out)
	for {
		var e watchEvent
		err := dec.Decode(&e)
		f.mu.Lock()
		switch {
		case err == nil:
			f.note(e)
		case f.err == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			f.err = err
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// note checks an event against what was seen of its object before: a change is
// seen once and in order.
func (f *follower) note(e watchEvent) {
	m := e.Object.Metadata
	before, known := f.live[m.UID]
	switch {
	case e.Type == "ADDED" && known:
		f.fail("%s added twice (at %s and %s)", m.Name, before.Object.Metadata.ResourceVersion, m.ResourceVersion)
	case e.Type != "ADDED" && !known:
		f.fail("%s %s at %s, but it was never added", m.Name, e.Type, m.ResourceVersion)
	case known && version(m) <= version(before.Object.Metadata):
		f.fail("%s %s at %s after %s", m.Name, e.Type, m.ResourceVersion, before.Object.Metadata.ResourceVersion)
	}
	f.events = append(f.events, e)
	if e.Type == "DELETED" {
		delete(f.live, m.UID)
	} else {
		f.live[m.UID] = e
	}
}

func (f *follower) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// matches tells whether the follower has arrived at exactly these objects.
func (f *follower) matches(objects []object) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if len(f.live) != len(objects) {
		return fmt.Errorf("the watch knows %d objects, the list %d", len(f.live), len(objects))
	}
	for _, o := range objects {
		have, ok := f.live[o.Metadata.UID]
		if !ok {
			return fmt.Errorf("the watch does not know %s", o.Metadata.Name)
		}
		if have.Object.Metadata.ResourceVersion != o.Metadata.ResourceVersion {
			return fmt.Errorf("the watch has %s at %s, the list at %s", o.Metadata.Name,
				have.Object.Metadata.ResourceVersion, o.Metadata.ResourceVersion)
		}
	}
	return nil
}

// check fails t when the watch broke a rule so far.
func (f *follower) check(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Errorf("kubectl get -w: %v", f.err)
	}
}

func (f *follower) stop() {
	_ = f.cmd.Process.Kill()
	<-f.done
	_ = f.cmd.Wait()
}

func version(m objectMeta) int64 {
	v, err := strconv.ParseInt(m.ResourceVersion, 10, 64)
	if err != nil {
		return -1
	}
	return v
}
