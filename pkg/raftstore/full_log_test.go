package raftstore

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
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
