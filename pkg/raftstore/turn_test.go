package raftstore

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// TestHardStateBehindItsEntries: whatever a crash leaves of a batch that goes over several segments, no hard state counts on entries
// that are not there.
func TestHardStateBehindItsEntries(t *testing.T) {
	mem := vfs.NewMem()
	images := 0
	verify := func(vfs.Op, error) {
		for _, keep := range []func(vfs.Unsynced) bool{vfs.LoseAll, vfs.KeepAll} {
			r := newReplay(mark{})
			fs := mem.Crash(keep)
			w, err := wal.Open(fs, "wal", wal.Options{SegmentBytes: 64 << 10, ReserveInline: true}, r.record)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			images++
			if got := r.hard.GetCommit(); got > r.last() {
				t.Errorf("the log ends at entry %d, and its hard state counts on entry %d", r.last(), got)
			}
		}
	}
	l := newLogWriter(&Store{id: identity{member: 1, cluster: 1}}, &raftLog{})
	armed := false
	fs := vfs.Hooked(mem, vfs.Hooks{After: func(op vfs.Op, err error) {
		if armed && op.Kind.Changes() {
			verify(op, err)
		}
	}})
	var err error
	if l.wal, err = wal.Open(fs, "wal", wal.Options{SegmentBytes: 64 << 10, Header: l.header, ReserveInline: true}, nil); err != nil {
		t.Fatal(err)
	}
	armed = true
	for batch := range uint64(6) {
		m := &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(10 * (batch + 1))}
		for i := range uint64(10) {
			m.Entries = append(m.Entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(1)), Index: new(10*batch + i + 1),
				Data: []byte(strings.Repeat("x", 5000))})
		}
		if err := l.append([]logTask{{msg: m}}, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	if at := l.wal.Size(); at < 4*64<<10 || images < 20 {
		t.Errorf("the log has %d bytes, and %d crashes were looked at", at, images)
	}
	armed = false
	if err := l.wal.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestInPlaceAndPosted: while calls, checkpoints and compactions are under way, who appends and applies changes again and again. Each
// call is answered, which a lost wake would show, and what was answered is there at the next start.
func TestInPlaceAndPosted(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	l := newLedger()
	adjust := h.adjust
	h.adjust = func(c *Config) { adjust(c); l.watch(c) }
	s := h.open()
	ctx := t.Context()
	done := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				s.soleVoter.Store(true)
				return
			default:
			}
			s.soleVoter.Store(i%2 == 0)
			switch i % 50 {
			case 10:
				if err := s.Checkpoint(ctx); err != nil {
					t.Error(err)
				}
			case 30:
				rev := s.View().Revision()
				if rev == s.View().Compacted() { // no write came in between
					continue
				}
				_, err := s.Propose(ctx, compactCommand(int64(rev)))
				if err == nil {
					err = s.CompactWait(ctx, rev)
				}
				if err != nil {
					t.Errorf("compact to %d: %v", rev, err)
				}
			}
			h.pass(time.Millisecond)
		}
	})
	const writers, writes = 8, 150
	var calls sync.WaitGroup
	for w := range writers {
		calls.Go(func() {
			key := fmt.Sprintf("k%d", w)
			for i := range writes {
				l.try(key, i)
				put(t, s, key, fmt.Sprintf("v%0100d", i))
				l.ack(key, i)
			}
		})
	}
	calls.Wait()
	close(done)
	others.Wait()
	if got, want := s.View().Revision(), writers*writes+1; int(got) != want {
		t.Errorf("revision %d after all writes, want %d", got, want)
	}
	left := image(t, h, s, vfs.LoseAll)
	closeStore(t, s)
	l.verify(t, left, l.ackedNow())
	l.verify(t, h, l.ackedNow())
}

// TestInPlaceGoesOnPosted: what finds the disk full in place is written by the log goroutine once there is room, with what came behind.
func TestInPlaceGoesOnPosted(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	defer closeStore(t, s)
	mem := h.fillDisk()
	answers := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			if _, err := s.Propose(ctx, deleteCommand("b")); err != nil || ctx.Err() != nil {
				answers <- err
				return
			}
		}
	}()
	await(t, "full log", s.logFull.Load)
	s.node.mu.Lock()
	if got := s.node.posted; got.appends != 1 || got.batches != 1 {
		t.Errorf("with a full log %+v is posted", got)
	}
	s.node.mu.Unlock()
	mem.SetCapacity(0)
	h.awaitTicking("room", func() bool {
		return !s.logFull.Load() && !s.spaceLow.Load()
	})
	cancel()
	<-answers
	put(t, s, "a", "1")
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if got := s.node.posted; got != (posted{}) {
		t.Errorf("with room again %+v is posted", got)
	}
}

func compactCommand(rev int64) Command {
	return Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev}}}
}

// BenchmarkPropose is from the call to its answer, with so many calls in flight, on the real file system.
func BenchmarkPropose(b *testing.B) {
	for _, inFlight := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) {
			h := newHarness(b)
			h.fs, h.dir, h.db = vfs.OS, b.TempDir(), ""
			h.adjust = func(c *Config) { c.WALSegmentBytes = 0 }
			s := h.open()
			defer closeStore(b, s)
			value := strings.Repeat("v", 400)
			b.ReportAllocs()
			b.ResetTimer()
			var calls sync.WaitGroup
			for w := range inFlight {
				calls.Go(func() {
					key := fmt.Sprintf("k%d", w)
					for i := w; i < b.N; i += inFlight {
						if _, err := tryPut(s, key, value, 0); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			calls.Wait()
			b.StopTimer()
		})
	}
}
