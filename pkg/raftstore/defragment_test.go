package raftstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// compactNow compacts all that is superseded, and waits until it is gone from memory and from the database.
func compactNow(t *testing.T, s *Store) {
	rev := int64(s.View().Revision())
	_, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev}}})
	if err == nil {
		err = s.CompactWait(context.Background(), mvcc.Revision(rev))
	}
	if err != nil {
		t.Errorf("compaction: %v", err)
	}
}

// fragment makes a database of some MB of which most is free.
func fragment(t *testing.T, s *Store) {
	t.Helper()
	for i := range 1500 {
		put(t, s, fmt.Sprintf("k%d", i%5), fmt.Sprintf("%02000d", i))
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	compactNow(t, s)
}

// copyGate holds up the syncs of a copy of the database.
type copyGate struct {
	reached chan struct{} // one sync waits
	open    chan struct{} // closed to let it go on
	once    sync.Once
}

func (g *copyGate) hold(h *harness) {
	g.reached, g.open = make(chan struct{}), make(chan struct{})
	h.adjust = func(c *Config) {
		c.dbFS = vfs.Hooked(vfs.OS, vfs.Hooks{Before: func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && strings.HasSuffix(op.Path, ".tmp") {
				g.once.Do(func() { close(g.reached) })
				<-g.open
			}
			return nil
		}})
	}
}

// TestDefragmentIsShared: who comes while a defragmentation is under way waits for that one; a caller that does not wait any longer
// leaves it to go on, as in etcd.
func TestDefragmentIsShared(t *testing.T) {
	h := newHarness(t)
	var g copyGate
	g.hold(h)
	s := h.open()
	defer closeStore(t, s)
	fragment(t, s)
	size := s.Status().DBSize
	ctx, cancel := context.WithCancel(context.Background())
	impatient, patient := make(chan error, 1), make(chan error, 2)
	go func() { impatient <- s.Defragment(ctx) }()
	<-g.reached
	var called atomic.Int32
	for range 2 {
		go func() { called.Add(1); patient <- s.Defragment(context.Background()) }()
	}
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	await(t, "two callers", func() bool { return called.Load() == 2 })
	close(g.open)
	for range 2 {
		if err := <-patient; err != nil {
			t.Error(err)
		}
	}
	if got := s.Status().DBSize; got >= size {
		t.Errorf("size %d -> %d", size, got)
	}
}

// TestDefragmentBesideLoad: writes, checkpoints and compactions go on beside defragmentations, and nothing is lost.
func TestDefragmentBesideLoad(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	const writers, writes = 4, 1000
	var load sync.WaitGroup
	written := make([]map[string]string, writers)
	for w := range written {
		written[w] = make(map[string]string)
		load.Go(func() {
			for i := range writes {
				key, value := fmt.Sprintf("k%d-%d", w, i%300), fmt.Sprintf("%0*d", 500+i%3000, i)
				if _, err := tryPut(s, key, value, 0); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				written[w][key] = value
			}
		})
	}
	load.Go(func() {
		for i := range 40 {
			if err := s.Checkpoint(context.Background()); err != nil {
				t.Error(err)
			}
			if i%10 == 9 {
				put(t, s, "compacted", fmt.Sprint(i))
				compactNow(t, s)
			}
		}
	})
	for range 4 {
		if err := s.Defragment(context.Background()); err != nil {
			t.Error(err)
		}
	}
	load.Wait()
	if !h.saw("defragmented the database on request") {
		t.Error("no event tells of it")
	}
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	for w := range written {
		for key, want := range written[w] {
			if got := get(t, s, key); got != want {
				t.Errorf("%s = %.20q..., acknowledged was %.20q...", key, got, want)
			}
		}
	}
}

// TestDefragmentWithoutRoom: a copy that the disk has no room for is not begun, and the disk becoming full ends one.
func TestDefragmentWithoutRoom(t *testing.T) {
	h := newHarness(t)
	var free atomic.Int64
	h.adjust = func(c *Config) {
		c.diskFree = func(string) int64 { return free.Load() }
		c.Defrag.FreeBytes, c.Defrag.Window, c.Defrag.Interval = 1<<20, time.Second, time.Second
	}
	s := h.open()
	defer closeStore(t, s)
	fragment(t, s)
	if err := s.Defragment(context.Background()); err == nil || !strings.Contains(err.Error(), "the copy needs") {
		t.Errorf("defragmentation without room: %v", err)
	}
	h.idle(t, s, "the database has free pages and is not defragmented: the disk has no room for the copy")
	free.Store(1 << 40)
	h.idle(t, s, "defragmented the database automatically")
}

// idle lets time pass, with a write and a checkpoint now and then, until an event is seen.
func (h *harness) idle(t *testing.T, s *Store, event string) {
	t.Helper()
	await(t, event, func() bool {
		put(t, s, "idle", "1")
		if err := s.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		h.pass(5 * time.Second) // less than a put may take
		return h.saw(event)
	})
}

// TestAutoDefrag: pages that stay free are given back without a call, unless that is switched off.
func TestAutoDefrag(t *testing.T) {
	h := newHarness(t)
	off := false
	h.adjust = func(c *Config) {
		c.Defrag.FreeBytes, c.Defrag.Off = 1<<20, off
	}
	s := h.open()
	fragment(t, s)
	size := s.Status().DBSize
	h.idle(t, s, "defragmented the database automatically")
	if got := s.Status().DBSize; got > size/2 {
		t.Errorf("size %d -> %d", size, got)
	}
	closeStore(t, s)
	off, h.events = true, nil
	s = h.open()
	defer closeStore(t, s)
	fragment(t, s)
	size = s.Status().DBSize
	for range 100 {
		put(t, s, "idle", "1")
		if err := s.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		h.pass(5 * time.Second) // less than a put may take
	}
	if got := s.Status().DBSize; got < size || h.saw("defragmented") {
		t.Errorf("switched off: size %d -> %d, %q", size, got, h.events)
	}
}

// TestDefragAtStart is --bootstrap-defrag-threshold-megabytes.
func TestDefragAtStart(t *testing.T) {
	h := newHarness(t)
	threshold := int64(0)
	h.adjust = func(c *Config) { c.Defrag.StartBytes, c.Defrag.Off = threshold, true }
	s := h.open()
	fragment(t, s)
	st := s.Status()
	closeStore(t, s)
	threshold = (st.DBSize - st.DBSizeInUse) / 2
	s = h.open()
	defer closeStore(t, s)
	await(t, "a defragmentation", func() bool {
		h.pass(2 * housekeepingInterval)
		return h.saw("defragmented the database automatically")
	})
	if got := s.Status().DBSize; got > st.DBSize/2 {
		t.Errorf("size %d -> %d", st.DBSize, got)
	}
}

// TestCloseInDefragment: the end of a store ends the copy, and leaves nothing of it.
func TestCloseInDefragment(t *testing.T) {
	h := newHarness(t)
	var g copyGate
	g.hold(h)
	s := h.open()
	fragment(t, s)
	result := make(chan error, 1)
	go func() { result <- s.Defragment(context.Background()) }()
	<-g.reached
	closed := make(chan error, 1)
	go func() { closed <- s.halt() }()
	await(t, "the end to begin", func() bool { return s.ctx.Err() != nil })
	close(g.open)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-result; err != nil && !errors.Is(err, ErrStopped) { // nil: its last step was under way
		t.Errorf("defragmentation: %v", err)
	}
	if _, err := os.Stat(h.db + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy: %v", err)
	}
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "k4"); got != fmt.Sprintf("%02000d", 1499) {
		t.Errorf("k4 = %.20q...", got)
	}
}
