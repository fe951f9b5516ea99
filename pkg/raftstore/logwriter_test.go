package raftstore

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// bareLog is the log of a store that does nothing else.
func bareLog(t *testing.T, files vfs.FS) *logWriter {
	cfg := Config{DataDir: "/data", FS: files}
	cfg.EnsureDefaults()
	s := newStore(cfg)
	s.id, s.metrics = identity{member: 1, cluster: 2}, newMetrics(0)
	wake := make(chan struct{}, 1)
	s.node = &node{wake: wake, inbox: newMailbox[nodeInput](0, wake)}
	l := newLogWriter(s, &raftLog{})
	w, err := wal.Open(files, "/wal", wal.Options{SegmentBytes: 64 << 10, Header: l.header, ReserveInline: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.log, l.wal = l, w
	return l
}

// TestMarkInTheMiddleOfABatch: the disk is full when a part of a batch is in the log. The checkpoint that makes room holds all that was in
// the log before, and its note comes into a segment behind that part, which must not be given back.
func TestMarkInTheMiddleOfABatch(t *testing.T) {
	const segmentBytes, entryBytes = 64 << 10, 20 << 10
	files := vfs.NewMem()
	l := bareLog(t, files)
	w := l.wal
	last := uint64(0)
	write := func(sizes ...int) {
		t.Helper()
		m := &raftpb.Message{Term: new(uint64(1))}
		for _, n := range sizes {
			last++
			m.Entries = append(m.Entries, &raftpb.Entry{Index: new(last), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: make([]byte, n)})
		}
		if _, err := l.process([]logTask{{msg: m}}, l.awaitSpace); err != nil {
			t.Fatal(err)
		}
	}
	write(entryBytes)
	write(entryBytes)
	files.SetCapacity(files.Used())
	write(entryBytes) // the spare segment is in use now, and there is no room for another one
	const record, room = 24 + entryHeaderBytes + 7, 64
	write(int(2*segmentBytes-w.Size()) - record - (entryBytes + record) - room)
	mark := logTask{mark: &mark{index: last, term: 1, conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}, done: make(chan error, 1)}
	l.inbox.put(mark)
	covered := last
	write(entryBytes, entryBytes) // the first one fits into the segment
	if err := <-mark.done; err != nil {
		t.Fatal(err)
	}
	r := newReplay(*mark.mark)
	if err := errors.Join(wal.Scan(files.Crash(vfs.LoseAll), "/wal", r.record), r.check(Dirs{}, "db")); err != nil {
		t.Fatal(err)
	}
	if r.last() != last {
		t.Errorf("behind the checkpoint at %d the log ends at %d, entries up to %d are durable", covered, r.last(), last)
	}
	if r.segments[0].segment != 2 {
		t.Errorf("the log begins with segment %d: the test has lost its sense", r.segments[0].segment)
	}
}

// TestLogBeginsWithWhatWasReplaced: the end of a follower's log goes on into a second segment, and another leader replaces it there, from an
// entry on that stands in the first one. A checkpoint gives that one back: the log begins with entries far above the checkpoint then, and those
// that follow replace them.
func TestLogBeginsWithWhatWasReplaced(t *testing.T) {
	files := vfs.NewMem()
	l := bareLog(t, files)
	write := func(term, first, last uint64) {
		t.Helper()
		for i := first; i <= last; i++ {
			m := &raftpb.Message{Term: new(term), Entries: []*raftpb.Entry{{Index: new(i), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: []byte(noise(10 << 10))}}}
			if _, err := l.process([]logTask{{msg: m}}, l.awaitSpace); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1, 1, 8)
	write(2, 4, 5)
	done := mark{index: 4, term: 2, conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}
	if err := l.release(done); err != nil {
		t.Fatal(err)
	}
	r := newReplay(done)
	var begins uint64
	err := wal.Scan(files, "/wal", func(pos wal.Position, rec wal.Record) error {
		if begins == 0 {
			begins = pos.Segment
		}
		return r.record(pos, rec)
	})
	if err := errors.Join(err, r.check(Dirs{}, "db")); err != nil {
		t.Errorf("the next start: %v", err)
	}
	if r.last() != 5 || len(r.entries) == 0 || r.entries[0].GetTerm() != 2 {
		t.Errorf("behind the checkpoint at 4 the log ends at %d, with %d entries", r.last(), len(r.entries))
	}
	if begins != 2 {
		t.Errorf("the log begins with segment %d: the test has lost its sense", begins)
	}
}

// TestFullLogTellsWhatIsWritten: what has come in while the log waited for room is more than there will ever be room for at once. Raft hears of
// each part that is written, so that checkpoints can hold it and make room for the next.
func TestFullLogTellsWhatIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := vfs.NewMem()
		l := bareLog(t, files)
		files.SetCapacity(files.Used())
		var tasks []logTask
		const messages = 20
		for i := range uint64(messages) {
			tasks = append(tasks, logTask{msg: &raftpb.Message{Term: new(uint64(1)),
				Entries: []*raftpb.Entry{{Index: new(i + 1), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: []byte(noise(20 << 10))}},
				Responses: []*raftpb.Message{{Type: raftpb.MsgStorageAppendResp.Enum(), To: new(l.s.id.member), Index: new(i + 1)},
					{Type: raftpb.MsgAppResp.Enum(), To: new(uint64(7)), Index: new(i + 1)}}}})
		}
		done := make(chan []nodeInput, 1)
		go func() {
			inputs, err := l.process(tasks, l.awaitSpace)
			if err != nil {
				t.Error(err)
			}
			done <- inputs
		}()
		var told uint64
		for {
			var inputs []nodeInput
			select {
			case <-l.s.node.wake:
				inputs = l.s.node.inbox.take()
			case inputs = <-done:
				done = nil
			}
			for _, in := range inputs {
				if told++; in.msg.GetIndex() != told {
					t.Fatalf("raft hears of entry %d behind entry %d", in.msg.GetIndex(), told-1)
				}
			}
			if done == nil {
				break
			}
			l.inbox.put(logTask{mark: &mark{index: told, term: 1, conf: &raftpb.ConfState{Voters: []uint64{1, 7}}}, done: make(chan error, 1)})
		}
		if told != messages {
			t.Errorf("raft has heard of %d entries of %d", told, messages)
		}
	})
}

// TestRoomThatNobodySaw: the spare segment found no room, and there is room by the time of the next write. What grows is not refused then.
func TestRoomThatNobodySaw(t *testing.T) {
	files := vfs.NewMem()
	files.SetCapacity(100 << 10) // for one segment
	l := bareLog(t, files)
	if !l.wal.SpaceLow() {
		t.Fatal("there was room for a spare segment")
	}
	files.SetCapacity(0)
	if _, err := l.process(nil, l.awaitSpace); err != nil {
		t.Fatal(err)
	}
	if l.s.spaceLow.Load() {
		t.Error("the disk counts as full")
	}
}

// TestRoomBesideASegmentThatStays: a segment cannot be given back, for whatever reason. The log goes on all the same once there is room.
func TestRoomBesideASegmentThatStays(t *testing.T) { synctest.Test(t, testRoomBesideASegmentThatStays) }

func testRoomBesideASegmentThatStays(t *testing.T) {
	files := vfs.NewMem()
	l := bareLog(t, vfs.Hooked(files, vfs.Hooks{Before: func(op vfs.Op) error {
		if op.Kind == vfs.OpRemove && strings.HasSuffix(op.Path, ".wal") || op.Kind == vfs.OpRename && strings.HasSuffix(op.NewPath, "spare") && strings.HasSuffix(op.Path, ".wal") {
			return syscall.EPERM
		}
		return nil
	}}))
	files.SetCapacity(files.Used())
	for i := range uint64(4) {
		m := &raftpb.Message{Term: new(uint64(1)), Entries: []*raftpb.Entry{{Index: new(i + 1), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: []byte(noise(25 << 10))}}}
		if _, err := l.process([]logTask{{msg: m}}, l.awaitSpace); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.release(mark{index: 4, term: 1, conf: &raftpb.ConfState{}}); !errors.Is(err, syscall.EPERM) {
		t.Fatalf("release: %v", err)
	}
	for _, full := range []bool{true, false} {
		if !full {
			files.SetCapacity(0)
		}
		if _, err := l.process(nil, l.awaitSpace); err != nil {
			t.Fatal(err)
		}
		if got := l.s.spaceLow.Load(); got != full {
			t.Errorf("the disk counts as full: %v, want %v", got, full)
		}
	}
}

// TestRoomDuringAPause: an attempt to make a spare segment has failed, and the next is not due for long. What a checkpoint gives back meanwhile
// is room at once: as the spare segment, or, if it is of another size, as what is free on the disk.
func TestRoomDuringAPause(t *testing.T) {
	for name, segmentBytes := range map[string]int64{"recycled": 64 << 10, "removed": 96 << 10} {
		t.Run(name, func(t *testing.T) {
			files := vfs.NewMem()
			l := bareLog(t, files)
			reopen := func(bytes int64) {
				w, err := wal.Open(files, "/wal", wal.Options{SegmentBytes: bytes, Header: l.header, ReserveInline: true}, nil)
				if err = errors.Join(l.wal.Close(), err); err != nil {
					t.Fatal(err)
				}
				l.wal = w
			}
			write := func(index uint64) {
				m := &raftpb.Message{Term: new(uint64(1)), Entries: []*raftpb.Entry{{Index: new(index), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: []byte(noise(25 << 10))}}}
				if _, err := l.process([]logTask{{msg: m}}, l.awaitSpace); err != nil {
					t.Fatal(err)
				}
			}
			reopen(segmentBytes)
			index := uint64(0)
			for l.segments.last() < 2 {
				index++
				write(index)
			}
			reopen(64 << 10)
			files.SetCapacity(files.Used())
			for l.segments.last() < 3 {
				index++
				write(index)
			}
			if !l.wal.SpaceLow() {
				t.Fatal("there is a spare segment: the test has lost its sense")
			}
			l.reserveAt = time.Now().Add(time.Hour)
			if err := l.makeRoom(); !errors.Is(err, wal.ErrNoSpace) {
				t.Fatalf("room on a full disk: %v", err)
			}
			l.mark = mark{index: index, term: 1, conf: &raftpb.ConfState{}}
			if err := l.makeRoom(); err != nil {
				t.Errorf("room behind a checkpoint: %v", err)
			}
		})
	}
}

// last is the newest segment.
func (s segmentStarts) last() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].segment
}

// TestCheckpointEndsWithTheStore: a checkpoint does not wait for a log that has ended.
func TestCheckpointEndsWithTheStore(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	put(t, s, "a", "1")
	s.log.mu.Lock() // as while it waits
	done := make(chan error, 1)
	go func() { done <- s.Checkpoint(context.Background()) }()
	await(t, "the mark", func() bool { return s.log.inbox.len() > 0 })
	s.fail(errors.New("the disk is gone"))
	if err := <-done; !errors.Is(err, ErrStopped) {
		t.Errorf("checkpoint of a store that failed: %v", err)
	}
	s.log.mu.Unlock()
	if err := s.Checkpoint(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("another checkpoint: %v", err)
	}
	_ = s.Close()
}
