package raftstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// memberLog is what the log of a member says, record by record, as changing leaders had it written.
type memberLog struct {
	entries []*raftpb.Entry
	hard    *raftpb.HardState
	records []wal.Record
	at      []wal.Position
	segment uint64
	starts  segmentStarts
}

func (l *memberLog) record(rec wal.Record) {
	l.records = append(l.records, rec)
	l.at = append(l.at, wal.Position{Segment: l.segment, Offset: int64(len(l.at))})
}

func (l *memberLog) rotate() {
	l.segment++
	l.record(identity{1, 1}.record())
	l.record(mark{conf: &raftpb.ConfState{}}.record())
	l.record(hardStateRecord(l.hard))
}

// append writes count entries from an index on, and says behind them what is committed.
func (l *memberLog) append(from uint64, count int, commit uint64, alone bool) {
	term := l.hard.GetTerm()
	if from <= uint64(len(l.entries)) {
		term++
	}
	l.hard = &raftpb.HardState{Term: new(term), Vote: new(uint64(1)), Commit: new(commit)}
	l.entries = l.entries[:from-1]
	if count > 0 {
		l.starts.add(l.segment, from)
	}
	for i := range count {
		e := &raftpb.Entry{Index: new(from + uint64(i)), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: fmt.Appendf(nil, "%d of %d", from+uint64(i), term)}
		l.entries = append(l.entries, e)
		data := append(entryHeader(nil, e), e.Data...)
		if i == count-1 && !alone {
			l.record(wal.Record{Type: recordLastEntry, Data: append(hardStateRecord(l.hard).Data, data...)})
		} else {
			l.record(wal.Record{Type: recordEntry, Data: data})
		}
	}
	if count == 0 || alone {
		l.record(hardStateRecord(l.hard))
	}
}

func randomLog(r *rand.Rand) *memberLog {
	l := &memberLog{hard: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(0))}}
	l.rotate()
	for range 1 + r.IntN(30) {
		if r.IntN(4) == 0 {
			l.rotate()
		}
		commit, end := l.hard.GetCommit(), uint64(len(l.entries))
		from, count := end+1, r.IntN(6)
		if count > 0 && r.IntN(3) == 0 {
			from = commit + 1 + r.Uint64N(end-commit+1)
		}
		end = from - 1 + uint64(count)
		if r.IntN(3) > 0 {
			commit += r.Uint64N(end - commit + 1)
		}
		l.append(from, count, commit, r.IntN(2) == 0)
	}
	return l
}

func texts(entries []*raftpb.Entry) []string {
	all := []string{}
	for _, e := range entries {
		all = append(all, string(e.GetData()))
	}
	return all
}

// TestReplayHandsOn: from whatever log, and however much of its beginning a checkpoint has given back, the committed entries behind the checkpoint
// are handed on, each once and in order, and the rest is what is held at the end.
func TestReplayHandsOn(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := randomLog(r)
		commit := l.hard.GetCommit()
		base := r.Uint64N(commit + 1)
		starts := slices.Clone(l.starts)
		first, _ := starts.firstNeeded(base)
		p := newReplay(mark{index: base})
		var handed []*raftpb.Entry
		p.take = func(e *raftpb.Entry) error { handed = append(handed, e); return nil }
		for i, rec := range l.records {
			if l.at[i].Segment < first {
				continue
			}
			if err := p.record(l.at[i], rec); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := p.finish(Dirs{}, "db"); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got, want := texts(handed), texts(l.entries[base:commit]); !slices.Equal(got, want) {
			t.Fatalf("seed %d: behind %d, with %d committed, %q were handed on, want %q", seed, base, commit, got, want)
		}
		if got, want := texts(p.entries), texts(l.entries[commit:]); !slices.Equal(got, want) || p.last() != uint64(len(l.entries)) {
			t.Fatalf("seed %d: %q are held, up to %d, want %q", seed, got, p.last(), want)
		}
	}
}

// TestReplayHoldsWhatMayBeReplaced: of a long log no more is held than what no hard state counts on yet.
func TestReplayHoldsWhatMayBeReplaced(t *testing.T) {
	l := &memberLog{hard: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(0))}}
	l.rotate()
	const batch, batches = 10, 100
	for i := range uint64(batches) {
		l.append(i*batch+1, batch, i*batch, i%2 == 0)
	}
	p, most := newReplay(mark{}), 0
	for i, rec := range l.records {
		if err := p.record(l.at[i], rec); err != nil {
			t.Fatal(err)
		}
		most = max(most, len(p.entries))
	}
	if most > 2*batch || p.last() != batch*batches {
		t.Errorf("%d of %d entries were held", most, p.last())
	}
}

// TestHardStateOfAHeader: in logs of early versions a segment may begin with a hard state that counts on what comes behind it, in the place of what
// stands before.
func TestHardStateOfAHeader(t *testing.T) {
	l := &memberLog{hard: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(0))}}
	l.rotate()
	l.append(1, 5, 2, false)
	l.hard = &raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(4))}
	l.rotate()
	l.append(3, 3, 4, false)
	p := newReplay(mark{})
	var handed []*raftpb.Entry
	p.take = func(e *raftpb.Entry) error { handed = append(handed, e); return nil }
	for i, rec := range l.records {
		if err := p.record(l.at[i], rec); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := texts(handed), texts(l.entries[:4]); !slices.Equal(got, want) {
		t.Errorf("%q were handed on, want %q", got, want)
	}
}

// longLog is a store with much in its log behind a checkpoint: values, transactions that look at them, a compaction and a lease. It has ended as
// by a crash.
func longLog(h *harness) (want string) {
	s := withHistory(h, 100)
	for i := range 300 {
		key := fmt.Sprintf("/registry/k%d", i%7)
		put(h.t, s, key, strings.Repeat(fmt.Sprint(i), 40))
		if i == 150 || i == 250 {
			if err := compactTo(s, s.View().Revision()-5); err != nil {
				h.t.Fatal(err)
			}
		}
		if i%10 == 0 {
			if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindDeleteRange,
				Request: &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	awaitEvent(h, CompactionDone{Revision: s.View().Compacted()})
	want = everything(h.t, s)
	if err := s.halt(); err != nil {
		h.t.Fatal(err)
	}
	return want
}

// TestStartReadsTheLogTwice: a start that holds the entries of a log and one that reads them again come to the same state, and keep nothing of
// them for others that are not there.
func TestStartReadsTheLogTwice(t *testing.T) {
	h := newHarness(t)
	want := longLog(h)
	var opened []Opened
	for _, held := range []int{1 << 30, 1, 1 << 10} {
		h.adjust = func(c *Config) { c.heldBytes = held }
		s := h.open()
		if got := everything(t, s); got != want {
			t.Errorf("%d bytes held: %s", held, firstOther(got, want))
		}
		first, _ := s.log.log.FirstIndex()
		if err := s.halt(); err != nil {
			t.Fatal(err)
		}
		for _, e := range h.structs {
			if o, ok := e.(Opened); ok {
				opened = append(opened, o)
			}
		}
		h.structs = nil
		if o := opened[len(opened)-1]; first <= o.Index {
			t.Errorf("%d bytes held: entries from %d on are kept, up to %d were applied", held, first, o.Index)
		}
	}
	s := h.open()
	rev := s.View().Compacted()
	rows := rowsNeeded(t, s.View())
	if err := errors.Join(s.CompactWait(context.Background(), rev), s.Checkpoint(context.Background()), s.halt()); err != nil {
		t.Fatal(err)
	}
	holds(h, rows, rev, rev)
	for _, o := range opened[len(opened)-2:] { // each start writes entries of its own
		if o.Checkpoint != opened[len(opened)-3].Checkpoint || o.Replayed < opened[len(opened)-3].Replayed || o.Replayed < 300 {
			t.Errorf("%+v behind %+v", o, opened[len(opened)-3])
		}
	}
}

// TestStartCannotReadTheLog: whichever read of the log fails, in the first reading or the second, the start ends with that error.
func TestStartCannotReadTheLog(t *testing.T) {
	h := newHarness(t)
	longLog(h)
	isRead := func(op vfs.Op) bool { return op.Kind == vfs.OpRead && strings.HasSuffix(op.Path, ".wal") }
	real, reads := h.fs, 0
	h.fs = vfs.Hooked(real, vfs.Hooks{Before: func(op vfs.Op) error {
		if isRead(op) {
			reads++
		}
		return nil
	}})
	if err := h.open().halt(); err != nil {
		t.Fatal(err)
	}
	if reads < 4 {
		t.Fatalf("%d reads", reads)
	}
	for n := range reads {
		h.fs = vfs.Hooked(real.(*vfs.Mem).Clone(), vfs.Hooks{Before: vfs.FailNth(int64(n+1), syscall.EIO, isRead)})
		if _, err := Open(h.config()); !errors.Is(err, syscall.EIO) {
			t.Errorf("read %d of %d failed: %v", n+1, reads, err)
		}
	}
}
