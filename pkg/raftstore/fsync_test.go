package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// gate holds back the fsyncs of the WAL while it is shut.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{} // nil: open
	syncs int
	fail  error
}

func (g *gate) before(op vfs.Op) error {
	if op.Kind != vfs.OpSync {
		return nil
	}
	g.mu.Lock()
	g.syncs++
	shut, err := g.shut, g.fail
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
	return err
}

func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut, g.syncs = shut, 0
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	}
}

func gated(h *harness) *gate {
	g := &gate{}
	h.fs = vfs.Hooked(h.fs, vfs.Hooks{Before: g.before})
	return g
}

// TestGroupCommit: what comes in during an fsync shares the next one.
func TestGroupCommit(t *testing.T) {
	h := newHarness(t)
	g := gated(h)
	s := h.open()
	defer closeStore(t, s)
	open := g.close()
	var calls sync.WaitGroup
	const n = 200
	for i := range n {
		calls.Go(func() { put(t, s, fmt.Sprintf("k%d", i), "v") })
	}
	await(t, "arrival of all calls", func() bool { return s.waiters.len() == n })
	open()
	calls.Wait()
	if g.syncs > 5 {
		t.Errorf("%d proposals took %d fsyncs", n, g.syncs)
	}
	if got := s.View().Revision(); got != n+1 {
		t.Errorf("revision %d after %d puts", got, n)
	}
}

// TestNothingBeforeFsync is I2: no answer and no View before the fsync is over.
func TestNothingBeforeFsync(t *testing.T) {
	h := newHarness(t)
	g := gated(h)
	s := h.open()
	defer closeStore(t, s)
	open := g.close()
	answered := make(chan error, 1)
	go func() { _, err := tryPut(s, "a", "1", 0); answered <- err }()
	await(t, "fsync", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.syncs > 0 })
	if got := get(t, s, "a"); got != "<none>" {
		t.Errorf("a = %q before the fsync", got)
	}
	select {
	case err := <-answered:
		t.Errorf("answered before the fsync: %v", err)
	default:
	}
	open()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestTimeout: a call that waits too long is answered, and what it wrote may come nevertheless.
func TestTimeout(t *testing.T) {
	h := newHarness(t)
	g := gated(h)
	s := h.open()
	defer closeStore(t, s)
	h.pass(0)
	open := g.close()
	answered := make(chan error, 2)
	go func() { _, err := tryPut(s, "a", "1", 0); answered <- err }()
	await(t, "call", func() bool { return s.waiters.len() == 1 })
	h.pass(8 * time.Second)
	if err := <-answered; !errors.Is(err, ErrTimeout) {
		t.Errorf("call that waited 8 s: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Propose(ctx, putCommand("b", "1")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
	open()
	await(t, "late write", func() bool { return get(t, s, "b") == "1" })
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
}

// TestFailedFsync: nothing is known of the disk then, so nothing is acknowledged any more, and what was is there at the next start.
func TestFailedFsync(t *testing.T) {
	h := newHarness(t)
	mem := h.fs.(*vfs.Mem)
	g := gated(h)
	s := h.open()
	put(t, s, "a", "1")
	g.mu.Lock()
	g.fail = syscall.EIO
	g.mu.Unlock()
	if _, err := tryPut(s, "b", "1", 0); !errors.Is(err, ErrStopped) {
		t.Errorf("put with a failing fsync: %v", err)
	}
	<-s.Failed()
	if !errors.Is(s.Err(), syscall.EIO) {
		t.Errorf("failure %v", s.Err())
	}
	if _, err := tryPut(s, "c", "1", 0); !errors.Is(err, ErrStopped) {
		t.Errorf("put after the failure: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	h.fs = mem.Crash(vfs.LoseAll)
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
}

// TestRequestTooLarge: the limit is on the log entry, as in etcd.
func TestRequestTooLarge(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.MaxRequestBytes = 1000; c.Quota = 1 << 30 }
	s := h.open()
	defer closeStore(t, s)
	if _, err := tryPut(s, "a", string(make([]byte, 1000)), 0); !errors.Is(err, ErrRequestTooLarge) {
		t.Errorf("put of 1000 bytes: %v", err)
	}
	for n := 950; n < 1000; n++ {
		value := string(make([]byte, n))
		entry := &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: s.nextID()}, Put: &pb.PutRequest{Key: []byte("a"), Value: []byte(value)}}
		if _, err := tryPut(s, "a", value, 0); errors.Is(err, ErrRequestTooLarge) != (proto.Size(entry) > 1000) {
			t.Errorf("put of %d bytes, of which etcd would make an entry of %d: %v", n, proto.Size(entry), err)
		}
	}
}
