package raftstore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// ledger is what clients were told, and the hashes that the store had. Each key's values count up.
type ledger struct {
	mu               sync.Mutex
	tried, acked     map[string]int
	hashes           map[uint64]uint64 // by index
	keysSeen, hashed int
}

func newLedger() *ledger {
	return &ledger{tried: make(map[string]int), acked: make(map[string]int), hashes: make(map[uint64]uint64)}
}

func (l *ledger) watch(c *Config) {
	c.OnApply = func(v *mvcc.View, _ []mvcc.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hashes[v.Index()] = v.Hash()
	}
}

func (l *ledger) try(key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried[key] = n
}

func (l *ledger) ack(key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[key] = n
}

// ackedNow is a copy of what is acknowledged.
func (l *ledger) ackedNow() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

// image is what a crash leaves.
func image(t *testing.T, h *harness, s *Store, keep func(vfs.Unsynced) bool) *harness {
	t.Helper()
	next := newHarness(t)
	// On the checkpoint goroutine the database is between two transactions, one of the states that a crash can leave.
	err := s.checkpoint.call(context.Background(), func() error {
		db, err := os.ReadFile(h.db)
		if err != nil {
			return err
		}
		next.fs = h.fs.(*vfs.Mem).Crash(keep)
		return os.WriteFile(next.db, db, 0o600)
	})
	if err != nil {
		t.Fatalf("crash: %v", err)
	}
	return next
}

// verify opens what a crash left. acked must be there, or something newer that was tried; and what the store calls committed must
// be the state that there was.
func (l *ledger) verify(t *testing.T, h *harness, acked map[string]int) {
	t.Helper()
	s := h.open()
	l.mu.Lock()
	for k, want := range acked {
		got, err := strconv.Atoi(strings.TrimLeft(get(t, s, k), "v"))
		if err != nil || got < want || got > l.tried[k] {
			t.Fatalf("%s = %d (%v) after the crash; %d was acknowledged, %d was tried", k, got, err, want, l.tried[k])
		}
		l.keysSeen++
	}
	h.mu.Lock()
	events := slices.Clone(h.structs)
	h.mu.Unlock()
	for _, e := range events {
		o, ok := e.(Opened)
		if !ok {
			continue
		}
		if want, ok := l.hashes[o.Index]; ok {
			l.hashed++
			if o.Hash != want {
				t.Fatalf("state at index %d has hash %x after the crash, before it was %x", o.Index, o.Hash, want)
			}
		}
	}
	l.mu.Unlock()
	closeStore(t, s)
	if err := check(h.fs, Dirs{Data: h.dir}, h.db, func(f Finding) { t.Errorf("check: %v", f) }); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestCrash kills the store at random points under load and opens what is left.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) { crashRound(t, rand.New(rand.NewPCG(seed, uint64(round)))) })
	}
}

func crashRound(t *testing.T, rng *rand.Rand) {
	h, l := newHarness(t), newLedger()
	h.adjust = func(c *Config) {
		l.watch(c)
		c.WALSegmentBytes, c.Checkpoints.DeadRows, c.Checkpoints.PartBytes = 64<<10, 20, 4<<10
		c.freelistBytes = 1 // parts leave it out
	}
	s := h.open()
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("w%d/%d", w, i%50)
				l.try(key, i)
				if _, err := tryPut(s, key, fmt.Sprintf("v%0300d", i), 0); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				l.ack(key, i)
			}
		})
	}
	writers.Go(func() { // compaction and checkpoints under way
		for ctx.Err() == nil {
			waitApplied(ctx, s, s.View().Index()+150)
			rev := int64(s.View().Revision())
			_, _ = s.Propose(ctx, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev - 20}}})
			if err := s.Checkpoint(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("checkpoint: %v", err)
			}
		}
	})
	for crash := range 3 {
		waitApplied(ctx, s, s.View().Index()+uint64(rng.IntN(500)))
		acked := l.ackedNow()
		next := image(t, h, s, vfs.Seeded(rng.Uint64()))
		t.Run(fmt.Sprint(crash), func(t *testing.T) { l.verify(t, next, acked) })
	}
	cancel()
	writers.Wait()
	closeStore(t, s)
	l.verify(t, h, l.ackedNow())
	if l.keysSeen == 0 || l.hashed == 0 {
		t.Errorf("%d keys and %d hashes compared: the test has lost its sense", l.keysSeen, l.hashed)
	}
}

func waitApplied(ctx context.Context, s *Store, index uint64) {
	for s.View().Index() < index && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // the writers are running; there is no event to wait for at a random index
	}
}

// TestCrashAfterCheckpointCommit: bbolt holds the new state, and the log was not told.
func TestCrashAfterCheckpointCommit(t *testing.T) {
	h, l := newHarness(t), newLedger()
	h.adjust = l.watch
	s := h.open()
	for i := range 100 {
		key := fmt.Sprintf("k%d", i%10)
		l.try(key, i)
		put(t, s, key, fmt.Sprintf("v%d", i))
		l.ack(key, i)
	}
	next := newHarness(t)
	err := s.checkpoint.call(context.Background(), func() error {
		c := s.checkpoint
		got, err := c.capture()
		if err != nil {
			return err
		}
		batch, err := batchOf(got)
		if err != nil {
			return err
		}
		if _, err := c.db.Write(batch); err != nil {
			return err
		}
		db, err := os.ReadFile(h.db)
		if err != nil {
			return err
		}
		next.fs = h.fs.(*vfs.Mem).Crash(vfs.LoseAll)
		if err := c.release(got, true); err != nil {
			return err
		}
		c.last.index = got.state.Index
		return os.WriteFile(next.db, db, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.verify(t, next, l.ackedNow())
	closeStore(t, s)
}

// TestCrashInDefragment: the leftover is removed, and the old file counts.
func TestCrashInDefragment(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	put(t, s, "a", "1")
	closeStore(t, s)
	if err := os.WriteFile(h.db+".tmp", []byte("half a copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	if left, _ := filepath.Glob(h.db + ".tmp"); len(left) != 0 {
		t.Errorf("leftover %v is still there", left)
	}
}
