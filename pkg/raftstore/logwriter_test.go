package raftstore

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// TestMarkInTheMiddleOfABatch: the disk is full when a part of a batch is in the log. The checkpoint that makes room holds all that was in
// the log before, and its note comes into a segment behind that part, which must not be given back.
func TestMarkInTheMiddleOfABatch(t *testing.T) {
	const segmentBytes, entryBytes = 64 << 10, 20 << 10
	files := vfs.NewMem()
	cfg := Config{DataDir: "/data", FS: files}
	cfg.EnsureDefaults()
	s := newStore(cfg)
	s.id = identity{member: 1, cluster: 2}
	log := &raftLog{}
	s.log = newLogWriter(s, log)
	l := s.log
	w, err := wal.Open(files, "/wal", wal.Options{SegmentBytes: segmentBytes, Header: l.header, ReserveInline: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.wal = w
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
