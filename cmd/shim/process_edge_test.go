package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// The machine of TestProcessAtTheEdge.
const (
	edgeCgroupBytes = 128 << 20
	edgeDiskBytes   = 10 << 20 // written a second
	edgeDiskWrites  = 100      // a second
)

// cage is a cgroup with little memory and a slow disk, of the version that the
// machine has. Of version 1 it slows down the writes that go past the page
// cache, the log's; those of the database only of version 2.
type cage struct {
	dirs []string // one for each hierarchy
}

func newCage(t *testing.T, disk string) *cage {
	t.Helper()
	name := fmt.Sprintf("shim-edge-%d", os.Getpid())
	device := deviceOf(t, disk)
	c := &cage{}
	set := func(dir string, values map[string]string) {
		t.Helper()
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatalf("make a cgroup: %v", err)
		}
		c.dirs = append(c.dirs, dir)
		for file, value := range values {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
				t.Fatalf("limit a cgroup: %v", err)
			}
		}
	}
	t.Cleanup(func() {
		for _, dir := range c.dirs {
			if err := os.Remove(dir); err != nil {
				t.Errorf("remove a cgroup: %v", err)
			}
		}
	})
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/memory/memory.limit_in_bytes"); err == nil {
		set(filepath.Join(root, "memory", name), map[string]string{"memory.limit_in_bytes": fmt.Sprint(edgeCgroupBytes)})
		set(filepath.Join(root, "blkio", name), map[string]string{
			"blkio.throttle.write_bps_device":  fmt.Sprintf("%s %d", device, edgeDiskBytes),
			"blkio.throttle.write_iops_device": fmt.Sprintf("%s %d", device, edgeDiskWrites),
		})
		return c
	}
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory +io"), 0); err != nil {
		t.Fatalf("limit a cgroup: %v", err)
	}
	set(filepath.Join(root, name), map[string]string{"memory.max": fmt.Sprint(edgeCgroupBytes), "memory.swap.max": "0",
		"io.max": fmt.Sprintf("%s wbps=%d wiops=%d", device, edgeDiskBytes, edgeDiskWrites)})
	return c
}

// deviceOf is the disk below a directory, as MAJOR:MINOR; that of a partition is
// the disk's.
func deviceOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	at, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		t.Fatalf("%s is not on a disk that can be slowed down: %v", dir, err)
	}
	if _, err := os.Stat(filepath.Join(at, "partition")); err == nil {
		whole, err := os.ReadFile(filepath.Join(filepath.Dir(at), "dev"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(whole))
	}
	return device
}

// start starts shim within the cgroup: a shell enters it, and becomes shim.
func (c *cage) start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	shell := filepath.Join(t.TempDir(), "shim")
	script := "#!/bin/sh\nset -e\n"
	for _, d := range c.dirs {
		script += "echo $$ >" + filepath.Join(d, "cgroup.procs") + "\n"
	}
	if err := os.WriteFile(shell, []byte(script+"exec "+binary+` "$@"`+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer func(was string) { binary = was }(binary)
	binary = shell
	return start(t, dir, args...)
}

// edgeLedger is what was acknowledged, by key: the value that has to be there, or
// one of those that came behind it without an answer.
type edgeLedger struct {
	mu    sync.Mutex
	acked map[string]string
	open  map[string][]string
}

func (l *edgeLedger) put(ctx context.Context, cli *clientv3.Client, key, value string) error {
	l.mu.Lock()
	l.open[key] = append(l.open[key], value)
	l.mu.Unlock()
	_, err := cli.Put(ctx, key, value)
	if err == nil {
		l.mu.Lock()
		l.acked[key], l.open[key] = value, nil
		l.mu.Unlock()
	}
	return err
}

// check compares all that was acknowledged with what is there.
func (l *edgeLedger) check(t *testing.T, cli *clientv3.Client) {
	t.Helper()
	got := map[string]string{}
	from := "/registry/"
	for more := true; more; {
		r, err := cli.Get(t.Context(), from, clientv3.WithRange("/registry0"), clientv3.WithLimit(500))
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range r.Kvs {
			got[string(kv.Key)] = string(kv.Value)
			from = string(kv.Key) + "\x00"
		}
		more = r.More
	}
	lost := 0
	for key, want := range l.acked {
		ok := got[key] == want
		for _, v := range l.open[key] {
			ok = ok || got[key] == v
		}
		if !ok {
			lost++
			t.Logf("%s: %.20q, want %.20q", key, got[key], want)
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d keys are not what was acknowledged", lost, len(l.acked))
	}
}

// TestProcessAtTheEdge runs --profile edge in 128 MiB on a slow disk, with what
// a k3s cluster of some nodes has and does: 4,000 objects of 5 kB, leases that
// are renewed, statuses, lists and watches beside it, compactions; kill -9 in
// the middle, and a start on the same machine.
func TestProcessAtTheEdge(t *testing.T) {
	const objects, size = 4000, 5 << 10
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := newCage(t, dir)
	book := &edgeLedger{acked: map[string]string{}, open: map[string][]string{}}
	p := c.start(t, dir, "--profile=edge")
	began := time.Now()
	cli := p.dial()
	edgeFill(t, book, cli, objects, size)
	t.Logf("written after %v", time.Since(began))
	edgeLoad(t, book, cli, 8*time.Second, nil)
	t.Logf("%d MiB of anonymous memory under load", anonBytes(t, p.cmd.Process.Pid)>>20)

	edgeLoad(t, book, cli, 2*time.Second, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	began = time.Now()
	p = c.start(t, dir, "--profile=edge")
	t.Logf("ready again after %v", time.Since(began))
	book.check(t, p.dial())
	if anon := anonBytes(t, p.cmd.Process.Pid); anon > edgeCgroupBytes {
		t.Errorf("%d bytes of memory", anon)
	}
	p.stop(syscall.SIGTERM)
	if bytes.Contains([]byte(p.log()), []byte("out of memory")) {
		t.Error("out of memory")
	}
}

func edgeKey(i int) string { return fmt.Sprintf("/registry/configmaps/ns-%d/object-%05d", i%10, i) }

func edgeValue(size int) string {
	b := make([]byte, size/2)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return fmt.Sprintf("%x", b)
}

func edgeFill(t *testing.T, book *edgeLedger, cli *clientv3.Client, objects, size int) {
	t.Helper()
	const writers = 32
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := w; i < objects && err == nil; i += writers {
				err = book.put(t.Context(), cli, edgeKey(i), edgeValue(size))
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// edgeLoad goes on for a while: 5 nodes, ten times as fast as theirs. If kill is
// given it is called at the end of the time, and calls may fail from then on.
func edgeLoad(t *testing.T, book *edgeLedger, cli *clientv3.Client, length time.Duration, kill func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	calls, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	loop := func(pause time.Duration, f func(i int) error) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
				if err := f(i); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
					t.Errorf("under load: %v", err)
					return
				}
			}
		})
	}
	for n := range 5 {
		loop(time.Second, func(int) error {
			return book.put(calls, cli, fmt.Sprintf("/registry/leases/kube-node-lease/node-%d", n), edgeValue(400))
		})
		loop(500*time.Millisecond, func(i int) error { return book.put(calls, cli, edgeKey(i*5+n), edgeValue(8<<10)) })
	}
	loop(time.Second, func(i int) error {
		_, err := cli.Get(calls, edgeKey(0)[:len("/registry/configmaps/")], clientv3.WithPrefix(), clientv3.WithLimit(500))
		return err
	})
	loop(2*time.Second, func(int) error {
		r, err := cli.Get(calls, "x")
		if err == nil {
			_, err = cli.Compact(calls, r.Header.Revision)
		}
		return err
	})
	for range 50 {
		wg.Go(func() {
			for r := range cli.Watch(ctx, "/registry/", clientv3.WithPrefix()) {
				_ = r
			}
		})
	}
	<-ctx.Done()
	if kill != nil {
		kill()
	}
	wait := time.AfterFunc(startTimeout, stop) // a call to a server that is gone
	if kill != nil {
		stop()
	}
	wg.Wait()
	wait.Stop()
}
