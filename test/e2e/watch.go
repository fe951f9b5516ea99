//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
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

// follower keeps what a watch through kubectl has seen.
type follower struct {
	server *apiserver
	path   string // of the collection when the watch is resumable, or empty
	args   []string
	done   chan struct{}

	mu     sync.Mutex
	cmd    *exec.Cmd
	ending bool
	last   string // resource version that was seen last
	events []watchEvent
	live   map[string]watchEvent // by UID
	err    error
}

// follow runs `kubectl get ARGS -w` until the test ends. The apiserver drops a
// watcher that does not keep up with a burst, and kubectl then ends; use it
// for what changes slowly.
func (c *cluster) follow(args ...string) *follower {
	c.t.Helper()
	return c.startFollower(&follower{server: c.apiservers[0], args: append([]string{"get", "-w", "--output-watch-events", "-o", "json"}, args...)})
}

// followAll watches a whole collection from now on. When the apiserver drops
// the watch, it goes on from the last resource version, as informers do.
func (c *cluster) followAll(s *apiserver, path string) *follower {
	c.t.Helper()
	l, err := s.list(c.ctx, "--raw", path)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(l.Items) != 0 {
		c.t.Fatalf("%s holds objects before the watch begins", path)
	}
	return c.startFollower(&follower{server: s, path: path, last: l.Metadata.ResourceVersion})
}

func (c *cluster) startFollower(f *follower) *follower {
	f.done, f.live = make(chan struct{}), map[string]watchEvent{}
	go f.run()
	c.t.Cleanup(f.stop)
	return f
}

// run reads one kubectl after the other until stop.
func (f *follower) run() {
	defer close(f.done)
	for f.once() {
	}
}

// once reads one kubectl to its end and tells whether to go on with another.
func (f *follower) once() bool {
	f.mu.Lock()
	args := f.args
	if f.path != "" {
		args = []string{"get", "--raw", f.path + "?watch=true&resourceVersion=" + f.last}
	}
	if f.ending {
		f.mu.Unlock()
		return false
	}
	var stderr bytes.Buffer
	f.cmd = exec.Command(f.server.kubectl, append([]string{"--kubeconfig=" + f.server.kubeconfig}, args...)...)
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.cmd.Stderr = &stderr
	out, err := f.cmd.StdoutPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	cmd := f.cmd
	f.mu.Unlock()
	if err == nil {
		err = f.read(out)
		err = errors.Join(err, cmd.Wait())
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" && !f.ending {
		f.fail("kubectl ended after %d events: %v: %s", len(f.events), err, stderr.String())
	}
	return f.path != "" && f.err == nil
}

// read notes events until the stream ends.
func (f *follower) read(out io.Reader) error {
	for dec := json.NewDecoder(out); ; {
		var e watchEvent
		if err := dec.Decode(&e); err != nil {
			return err
		}
		f.mu.Lock()
		f.note(e)
		f.mu.Unlock()
	}
}

// note checks an event against what was seen before: each change of an object
// is seen once and in order, and a watch of a collection goes up in versions.
func (f *follower) note(e watchEvent) {
	m := e.Object.Metadata
	if e.Type == "ERROR" {
		f.fail("the watch was refused after %d events", len(f.events))
		return
	}
	if f.path != "" && version(m) <= version(objectMeta{ResourceVersion: f.last}) {
		f.fail("%s %s at %s after %s had been seen", m.Name, e.Type, m.ResourceVersion, f.last)
	}
	f.last = m.ResourceVersion
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

// seen is how many events there were so far.
func (f *follower) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events)
}

// check ends t when the watch broke a rule so far.
func (f *follower) check(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Fatalf("kubectl get -w: %v", f.err)
	}
}

func (f *follower) stop() {
	f.mu.Lock()
	f.ending = true
	if f.cmd != nil && f.cmd.Process != nil {
		_ = f.cmd.Process.Kill()
	}
	f.mu.Unlock()
	<-f.done
}

func version(m objectMeta) int64 {
	v, err := strconv.ParseInt(m.ResourceVersion, 10, 64)
	if err != nil {
		return -1
	}
	return v
}
