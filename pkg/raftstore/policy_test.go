package raftstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/compact"
)

// reasons are the checkpoints so far.
func (h *harness) reasons() (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.structs {
		if c, ok := e.(CheckpointDone); ok {
			out = append(out, c.Reason)
		}
	}
	return out
}

// TestCheckpointPolicy: one is made when the log has grown, when many entries were applied, and when the last one is old; none when
// nothing was written.
func TestCheckpointPolicy(t *testing.T) {
	for reason, adjust := range map[string]func(*Config){
		"log size":    func(c *Config) { c.Checkpoints.WALBytes = 20 << 10 },
		"log entries": func(c *Config) { c.Checkpoints.Entries = 15 },
		"age":         func(c *Config) { c.Checkpoints.Age = time.Minute },
	} {
		t.Run(reason, func(t *testing.T) {
			h := newHarness(t)
			h.adjust = adjust
			s := h.open()
			defer closeStore(t, s)
			for range 20 {
				put(t, s, "k", strings.Repeat("v", 1500))
			}
			h.pass(2 * time.Minute)
			await(t, "checkpoint", func() bool { return len(h.reasons()) == 1 })
			if got := h.reasons()[0]; got != reason {
				t.Errorf("checkpoint because of %s, want %s", got, reason)
			}
			h.pass(10 * time.Minute)
			h.pass(10 * time.Minute)
			h.pass(0) // the tick before was seen
			put(t, s, "k", "v")
			if got := h.reasons(); len(got) != 1 && reason != "age" {
				t.Errorf("checkpoints %v", got)
			}
		})
	}
}

// TestCheckpointInBurst: a log that grows fast is checkpointed in parts, one that grows slowly is not.
func TestCheckpointInBurst(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Checkpoints.WALBytes, c.Checkpoints.BurstBytes = 4<<20, 64<<10 }
	s := h.open()
	defer closeStore(t, s)
	for range 60 {
		put(t, s, "k", strings.Repeat("v", 1500))
	}
	h.pass(3 * time.Second) // less than a proposal may take
	await(t, "a look at the log", func() bool {
		looked := false
		err := s.checkpoint.call(t.Context(), func() error { looked = s.checkpoint.growth.at.Equal(s.cfg.Now()); return nil })
		return err != nil || looked
	})
	if got := h.reasons(); len(got) != 0 {
		t.Errorf("checkpoints %v after 90 kB in three seconds", got)
	}
	for round := range 3 {
		for range 60 {
			put(t, s, "k", strings.Repeat("v", 1500))
		}
		h.pass(time.Second)
		await(t, "checkpoint", func() bool { return len(h.reasons()) == round+1 })
		if got := h.reasons()[round]; got != "log growth" {
			t.Errorf("checkpoint because of %s", got)
		}
	}
}

// TestNoCheckpointBehindAStart: what of the log a checkpoint has made superfluous does not ask for another one behind the next start.
func TestNoCheckpointBehindAStart(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Checkpoints.WALBytes = 20 << 10 }
	s := h.open()
	for range 12 {
		put(t, s, "k", strings.Repeat("v", 1500))
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 11 {
		put(t, s, "k", strings.Repeat("v", 1500))
		if i == 3 {
			if err := s.halt(); err != nil {
				t.Fatal(err)
			}
			s = h.open()
		}
		h.looked(s)
		if got := h.reasons(); len(got) != 1 {
			t.Fatalf("checkpoints %v, the last one with %d writes behind the one before", got, i+1)
		}
	}
	for range 4 {
		put(t, s, "k", strings.Repeat("v", 1500))
	}
	h.looked(s)
	if got := h.reasons(); len(got) != 2 || got[1] != "log size" {
		t.Errorf("checkpoints %v", got)
	}
	closeStore(t, s)
}

// looked lets a little time pass, and waits until the policy was asked.
func (h *harness) looked(s *Store) {
	h.t.Helper()
	h.pass(20 * time.Second)
	await(h.t, "a look at the log", func() bool {
		looked := false
		err := s.checkpoint.call(context.Background(), func() error { looked = s.checkpoint.growth.at.Equal(s.cfg.Now()); return nil })
		return err != nil || looked
	})
}

// TestStartUnderALimit: however slowly the log has grown, a start replays no more than a share of the memory limit.
func TestStartUnderALimit(t *testing.T) {
	const limit, valueBytes, rounds, writes = compact.MemoryLimitMin, 16 << 10, 20, 64
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Memory.Limit = limit }
	s := h.open()
	for round := range rounds {
		for i := range writes {
			put(t, s, fmt.Sprintf("k%d-%d", round, i), strings.Repeat("v", valueBytes))
		}
		h.looked(s)
	}
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	s = h.open()
	defer closeStore(t, s)
	h.mu.Lock()
	defer h.mu.Unlock()
	opened, ok := h.structs[slices.IndexFunc(h.structs, func(e Event) bool { o, ok := e.(Opened); return ok && !o.New })].(Opened)
	if !ok || opened.Replayed*valueBytes > limit/4+writes*valueBytes {
		t.Errorf("%+v: it has replayed %d bytes with a limit of %d", opened, opened.Replayed*valueBytes, limit)
	}
}

// TestLogGivesSegmentsBack: after checkpoints the log does not grow with what was written.
func TestLogGivesSegmentsBack(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	for i := range 1000 {
		put(t, s, fmt.Sprintf("k%d", i%20), strings.Repeat("v", 1000))
		if i%100 != 99 {
			continue
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.log.wal.Size(); got > 128<<10 {
			t.Fatalf("the log has %d bytes behind a checkpoint", got)
		}
	}
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	if got := s.View().Revision(); got != 1001 {
		t.Errorf("revision %d after a restart", got)
	}
}

// TestLeaderLost: streams that asked for a leader are told after three election timeouts without one, and not before.
func TestLeaderLost(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	lost := s.LeaderLost()
	select {
	case <-lost:
		t.Fatal("lost with a leader")
	default:
	}
	if !s.HasLeader() {
		t.Fatal("no leader")
	}
	// What the node does when raft says that the leader is gone; a sole voter never loses itself.
	s.loseLeader()
	<-lost
	s.loseLeader()
	<-s.LeaderLost()
	s.regainLeader()
	select {
	case <-s.LeaderLost():
		t.Error("still lost after a leader was found")
	default:
	}
}

// TestMailbox: the batch limits and the bound hold.
func TestMailbox(t *testing.T) {
	m := newMailbox[int](5, make(chan struct{}, 1))
	for i := range 5 {
		if !m.put(i + 1) {
			t.Fatalf("item %d was refused", i)
		}
	}
	if m.put(6) {
		t.Error("an item beyond the limit was taken")
	}
	size := func(i int) int { return i }
	if got := m.takeBatch(nil, 10, 3, size); len(got) != 2 {
		t.Errorf("batch of 3 bytes: %v", got)
	}
	if got := m.takeBatch(nil, 10, 1, size); len(got) != 1 || got[0] != 3 {
		t.Errorf("a batch holds at least one item: %v", got)
	}
	if got := m.takeBatch(nil, 1, 100, size); len(got) != 1 || got[0] != 4 {
		t.Errorf("batch of one item: %v", got)
	}
	m.recycle(m.take())
	if m.len() != 0 {
		t.Errorf("%d items are left", m.len())
	}
}
