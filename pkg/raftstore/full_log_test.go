package raftstore

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// noise is text of so many bytes that the log cannot pack.
func noise(bytes int) string {
	var s strings.Builder
	for s.Len() < bytes {
		s.WriteString(crand.Text())
	}
	return s.String()[:bytes]
}

// TestFullLogIsFreedByACheckpoint: the disk is full, the segment too, and the log goroutine waits for room. The checkpoint's mark
// reaches it there, and the segments that the mark gives back are that room, though nothing was removed from the disk.
func TestFullLogIsFreedByACheckpoint(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	values := make([]string, 100)
	for i := range values {
		values[i] = noise(1000)
		put(t, s, fmt.Sprintf("k%d", i), values[i])
	}
	h.fillDisk()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stuck, enough := make(chan error, 1), make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			_, err := s.Propose(ctx, Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{
				DeleteRange: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "k%d-%s", i, noise(900))}}})
			if err != nil || s.log.wal.Size() > 4<<20 {
				stuck <- err
				return
			}
			select {
			case <-enough: // it has been full; what is freed is not for us
				stuck <- nil
				return
			default:
			}
		}
	}()
	await(t, "a full log", s.logFull.Load)
	close(enough)
	before := s.log.wal.Size()
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatalf("checkpoint with a full log: %v", err)
	}
	h.awaitTicking("room", func() bool {
		return !s.logFull.Load() && !s.spaceLow.Load()
	})
	if after := s.log.wal.Size(); after >= before {
		t.Errorf("the log takes %d bytes after the checkpoint, and %d before", after, before)
	}
	cancel()
	if err := <-stuck; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the delete that waited: %v", err)
	}
	put(t, s, "after", "1")
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	for i := range 100 {
		if got := get(t, s, fmt.Sprintf("k%d", i)); got != values[i] {
			t.Errorf("k%d = %.20q... after a restart", i, got)
		}
	}
	if got := get(t, s, "after"); got != "1" {
		t.Errorf("after = %q", got)
	}
}

// TestFullLogOfOneSegment: there is room for two segments. The mark of the checkpoint still fits into the full one, and so keeps it; what waits
// takes the other, which was given back. Then the mark stands in that one too, and the full one is the room for all the rest.
func TestFullLogOfOneSegment(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	defer func() { closeStore(t, s) }()
	put(t, s, "a", "1")
	h.fillDisk()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stuck := make(chan error, 1)
	go func() {
		for {
			_, err := s.Propose(ctx, deleteCommand(noise(25<<10))) // two of them to a segment
			if err != nil || s.log.wal.Size() > 4<<20 {
				stuck <- err
				return
			}
		}
	}()
	await(t, "a full log", s.logFull.Load)
	cancel()
	if err := <-stuck; !errors.Is(err, context.Canceled) && !errors.Is(err, mvcc.ErrNoSpace) {
		t.Fatalf("the delete that waits: %v", err)
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatalf("checkpoint with a full log: %v", err)
	}
	h.awaitTicking("room", func() bool {
		_, err := tryPut(s, "a", "2", 0)
		if err != nil && !errors.Is(err, mvcc.ErrNoSpace) {
			t.Fatal(err)
		}
		return err == nil && s.log.wal.Size() < 64<<10
	})
	put(t, s, "after", "1")
	err := s.checkpoint.call(t.Context(), func() error { // what was given back behind it does not count against what the next one waits for
		if grown := s.log.wal.GivenBytes() - s.checkpoint.walSize; grown < 25<<10 {
			t.Errorf("the log has grown by %d bytes since the checkpoint", grown)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	closeStore(t, s)
	s = h.open()
	if a, after := get(t, s, "a"), get(t, s, "after"); a != "2" || after != "1" {
		t.Errorf("a = %q, after = %q after a restart", a, after)
	}
}

// TestFullDiskAsksForACheckpoint: the disk is full, and segments of the log lie behind that only a checkpoint can give back. One comes at once,
// though the log is far from the bounds of the policy, and nobody asks for it.
func TestFullDiskAsksForACheckpoint(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	defer func() { closeStore(t, s) }()
	put(t, s, "a", "1")
	h.fillDisk()
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		_, err = tryPut(s, fmt.Sprintf("k%d", i), noise(1000), 0)
	}
	if !errors.Is(err, mvcc.ErrNoSpace) {
		t.Fatalf("the disk did not become full: %v", err)
	}
	h.pass(2 * time.Second)
	h.awaitTicking("room", func() bool {
		return !s.spaceLow.Load()
	})
	put(t, s, "b", noise(1000))
}

// TestFullDisksOfACluster: no member's disk has room for more than two segments of the log. What is refused is taken a moment later, as each
// member makes its own room by checkpoints.
func TestFullDisksOfACluster(t *testing.T) { synctest.Test(t, testFullDisksOfACluster) }

func testFullDisksOfACluster(t *testing.T) {
	c := newCluster(t, 3, func(_ int, cfg *Config) { cfg.WALSegmentBytes = 64 << 10 })
	c.converge()
	for _, h := range c.members {
		h.fillDisk()
	}
	for i := range 60 {
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			_, err := tryPut(c.stores[i%3], fmt.Sprintf("k%d", i%10), noise(10<<10), 0)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("put %d is not taken: %v", i, err)
			}
		}
	}
	c.converge()
	for i, s := range c.stores {
		if size := s.log.wal.Size(); size > 128<<10 {
			t.Errorf("the log of member %d takes %d bytes", i, size)
		}
	}
}

// TestLongBacklogOnAFullDisk: a follower whose disk has room for two segments takes entries that fill more than that, though they come
// together: of those that stand in the first it makes a checkpoint before it has written the last.
func TestLongBacklogOnAFullDisk(t *testing.T) { synctest.Test(t, testLongBacklogOnAFullDisk) }

func testLongBacklogOnAFullDisk(t *testing.T) {
	c := newCluster(t, 3, func(_ int, cfg *Config) { cfg.WALSegmentBytes = 4 << 20 })
	leader, i := c.stores[c.leader()], c.follower()
	behind := c.stores[i]
	c.converge()
	c.members[i].fillDisk()
	c.net.setDrop(func(m *raftpb.Message) bool { return m.GetTo() == behind.id.member && m.GetType() == raftpb.MsgApp })
	has := behind.applied.Load()
	for i := range 12 {
		put(t, leader, fmt.Sprint("k", i), noise(1<<20))
	}
	entries, err := leader.log.log.Entries(has+1, leader.applied.Load()+1, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		before := e.GetIndex() - 1
		term, err := leader.log.log.Term(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := (peerHandler{behind}).Message(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(leader.id.member), To: new(behind.id.member), Term: new(e.GetTerm()),
			Index: new(before), LogTerm: new(term), Commit: new(leader.applied.Load()), Entries: []*raftpb.Entry{proto.CloneOf(e)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	peerHandler{behind}.Delivered()
	c.net.heal()
	c.converge()
}

// TestFullDiskWithoutFallocate: where a segment can only be made by writing all of it, a full disk is not written to all the time, and found to
// have room again all the same.
func TestFullDiskWithoutFallocate(t *testing.T) { synctest.Test(t, testFullDiskWithoutFallocate) }

func testFullDiskWithoutFallocate(t *testing.T) {
	h := newHarness(t)
	mem := h.fs.(*vfs.Mem)
	var attempts atomic.Int64
	h.adjust = func(c *Config) {
		c.Ticks, c.Now, c.WALSegmentBytes = nil, time.Now, 64<<10
		c.FS = vfs.Hooked(mem, vfs.Hooks{Before: func(op vfs.Op) error {
			if op.Kind == vfs.OpPreallocate {
				attempts.Add(1)
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		}})
	}
	mem.SetCapacity(100 << 10) // for one segment
	s := h.open()
	defer closeStore(t, s)
	await(t, "a full disk", func() bool { _, _ = tryPut(s, "a", "1", 0); return s.spaceLow.Load() })
	const minutes = 10
	attempts.Store(0)
	time.Sleep(minutes * time.Minute)
	if n := attempts.Load(); n > 5*minutes {
		t.Errorf("%d attempts in %d minutes", n, minutes)
	}
	mem.SetCapacity(0)
	await(t, "room", func() bool { return !s.spaceLow.Load() })
	put(t, s, "b", "1")
}

// TestStopsWithAFullLog: a stop does not wait for room that nobody makes.
func TestStopsWithAFullLog(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	put(t, s, "a", "1")
	mem := h.fillDisk()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil && !s.logFull.Load(); i++ {
			_, _ = s.Propose(ctx, Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{
				DeleteRange: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "k%d-%0900d", i, i)}}})
		}
	}()
	await(t, "a full log", s.logFull.Load)
	cancel()
	<-done
	_ = s.Close() // what it could not write is in the log
	mem.SetCapacity(0)
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
}
