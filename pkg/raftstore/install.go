package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// A snapshot from the leader replaces state, database and log of a member that fell behind, in these steps:
//
//	receive     1 write db.install.tmp, sync, load it and check all of it; 2 rename it to db.install-INDEX, sync the directory
//	node        3 step the MsgSnap; if raft wants it, it asks for an append with a snapshot, otherwise the file is removed
//	log         4 append an install record with the hard state, fsync; the log in memory is empty now and ends at INDEX
//	checkpoint  5 rename db.install-INDEX to db, sync the directory
//	apply       6 take over the state; View, then OnApply without events, which lets watchers read history
//	log         7 note the mark, give back all older segments
//	checkpoint  8 send raft's answers (I2)
//	log         9 go on with the entries behind
//
// A crash before 4 is durable leaves the old state: Open removes the file. From then on it leaves the new one: Open finds the record
// without a mark behind it, makes it durable, and does 5 if the file is still there. What comes behind the record in the log belongs to
// the new state.

// install is one snapshot on its way from receive to apply.
type install struct {
	message *raftpb.Message
	at      mark
	path    string // of the file
	state   *mvcc.State
	cluster *membership.Cluster
	done    chan error // capacity 1
}

// errSnapshotDeclined: this member has all that the snapshot holds.
var errSnapshotDeclined = errors.New("the snapshot is not needed")

const (
	installTemp   = ".install.tmp"
	installPrefix = ".install-"
)

func installPath(db string, index uint64) string {
	return db + installPrefix + strconv.FormatUint(index, 16)
}

// receiveSnapshot stores a snapshot and lets raft have it. It returns nil once it is the state of this member.
func (s *Store) receiveSnapshot(ctx context.Context, m *raftpb.Message, size int64, r io.Reader) error {
	if !s.installing.TryLock() {
		return errors.New("another snapshot is being received")
	}
	defer s.installing.Unlock()
	in := &install{message: m, at: mark{index: m.GetSnapshot().GetMetadata().GetIndex(), term: m.GetSnapshot().GetMetadata().GetTerm(),
		conf: m.GetSnapshot().GetMetadata().GetConfState()}, done: make(chan error, 1)}
	if in.at.index <= s.applied.Load() { // raft answers how far this member is
		return s.offer(in)
	}
	in.path = installPath(s.cfg.DBPath, in.at.index)
	if err := in.store(&s.cfg, size, r, s.checkpoint.db.Rows()); err != nil {
		return fmt.Errorf("receive snapshot at index %d: %w", in.at.index, err)
	}
	in.cluster = membership.NewCluster(types.ID(s.id.cluster), in.cluster.Members(), in.cluster.Removed())
	if ctx.Err() != nil {
		_ = s.cfg.dbFS.Remove(in.path)
		return ctx.Err()
	}
	err := s.offer(in)
	if errors.Is(err, errSnapshotDeclined) {
		_ = s.cfg.dbFS.Remove(in.path)
	}
	return err
}

// offer hands the snapshot to the node and waits for what becomes of it. It does not stop in between: the file is in use.
func (s *Store) offer(in *install) error {
	s.node.inbox.put(nodeInput{install: in})
	select {
	case err := <-in.done:
		return err
	case <-s.stop:
		return ErrStopped
	}
}

// store does steps 1 and 2.
func (in *install) store(cfg *Config, size int64, r io.Reader, rows mvcc.Rows) (err error) {
	temp := cfg.DBPath + installTemp
	defer func() {
		if err != nil { // one of them is there, at most
			_ = cfg.dbFS.Remove(temp)
			_ = cfg.dbFS.Remove(in.path)
		}
	}()
	if err := writeFile(cfg.dbFS, temp, size, r); err != nil {
		return err
	}
	db, err := backend.Open(temp, backend.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	content, err := in.load(cfg, db, rows)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if content.Index != in.at.index || content.Term != in.at.term {
		return fmt.Errorf("it holds the state at index %d, term %d", content.Index, content.Term)
	}
	if err := cfg.dbFS.Rename(temp, in.path); err != nil {
		return err
	}
	return cfg.dbFS.SyncDir(filepath.Dir(in.path))
}

func (in *install) load(cfg *Config, db *backend.DB, rows mvcc.Rows) (content backend.Content, err error) {
	if content, in.state, in.cluster, err = loadState(cfg, db, rows, 0); err != nil {
		return content, err
	}
	for !in.state.CompactStep(math.MaxInt32) {
	}
	return content, nil
}

func writeFile(files vfs.FS, path string, size int64, r io.Reader) error {
	f, err := files.Create(path)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.NewOffsetWriter(f, 0), r)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came, not %d", n, size)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// install is step 3.
func (n *node) install(in *install) {
	n.installing = in
	_ = n.raft.Step(in.message)
	n.flushAll()
	if n.installing != nil {
		n.installing = nil
		in.done <- errSnapshotDeclined
	}
}

// install is step 4.
func (l *logWriter) install(t logTask, await func() bool) error {
	l.tell()
	hs := messageHardState(t.msg)
	if raft.IsEmptyHardState(hs) {
		hs = &raftpb.HardState{Term: new(l.hardState.GetTerm()), Vote: new(l.hardState.GetVote()), Commit: new(t.install.at.index)}
	}
	for {
		_, err := l.wal.Append(installRecord(t.install.at), hardStateRecord(hs))
		if err == nil {
			err = l.wal.Sync()
		}
		if err == nil {
			break
		}
		if !errors.Is(err, wal.ErrNoSpace) || !await() {
			return err
		}
	}
	l.hardState, l.written = hs, hs
	l.segments, l.last = nil, t.install.at.index
	l.log.restore(t.install.at.index, t.install.at.term)
	installed := make(chan struct{})
	l.s.checkpoint.installs.put(installTask{install: t.install, msg: t.msg, answered: installed})
	return l.awaitInstall(installed)
}

// awaitInstall waits for the rest of the steps. What comes behind the snapshot, as from a leader that was elected meanwhile, has to be answered behind
// it: raft, when it hears that entries are durable, takes all that it was not told of for gone.
func (l *logWriter) awaitInstall(installed <-chan struct{}) error {
	defer poke(l.wake) // for what is put off
	for {
		select {
		case <-installed:
			return nil
		case <-l.s.failed:
			return ErrStopped
		case <-l.s.stop:
			return ErrStopped
		case <-l.wake:
			l.releaseMarks()
		}
	}
}

type installTask struct {
	*install
	msg      *raftpb.Message
	answered chan struct{} // closed behind raft's answers
}

// install is the rest of the steps.
func (c *checkpointer) install(t installTask) {
	s := c.s
	if err := c.onApply(func() { s.apply.state.Overtaken(t.state) }); err != nil {
		t.done <- err
		return
	}
	if err := c.db.Replace(t.path); err != nil {
		s.fail(fmt.Errorf("install snapshot: %w", err)) // the log goes on from it already
		t.done <- err
		return
	}
	if err := c.onApply(func() { s.apply.install(t.install) }); err != nil {
		t.done <- err
		return
	}
	c.removal.answer(ErrTimeout) // the rows were those of the former file
	c.removal = removal{}
	c.last, c.lastAt = t.at, s.cfg.Now()
	if err := c.markLog(); err != nil {
		s.cfg.OnEvent(CheckpointFailed{Reason: "install", Err: err})
	}
	c.walSize = s.log.wal.GivenBytes()
	s.metrics.database(c.db.Size(), c.db.SizeInUse())
	inputs, out := s.responses(nil, nil, t.msg)
	s.node.inbox.put(inputs...)
	s.peers.Send(out)
	close(t.answered)
	s.cfg.OnEvent(SnapshotInstalled{Index: t.at.index, Revision: s.View().Revision()})
	t.done <- nil
}

// install is step 6. What waits for an entry that the snapshot may hold cannot be answered from here: it may have taken effect.
func (a *applier) install(in *install) {
	if in.state.AuthRevision() != a.state.AuthRevision() { // a password that was changed may be among what was skipped
		a.s.cfg.Tokens.InvalidateAll()
	}
	in.state.Succeed(a.state)
	a.state, a.cluster, a.compacting, a.alarmed = in.state, in.cluster, false, true
	a.evicting, a.blocked = false, false
	view := a.state.Publish()
	a.compacted = view.Compacted()
	a.ended = append(a.ended, a.s.leases.replace(view.Leases(), a.s.cfg.Now())...)
	a.s.soleVoter.Store(a.s.alone(a.cluster))
	a.s.hashes.reset()
	a.membersChanged()
	a.publish(nil)
	a.s.waiters.failAll(ErrTimeout)
	a.answerCompacted()
}

// finishInstall does what a crash kept an install from doing, before anything is read.
func finishInstall(cfg *Config) error {
	dir, prefix := filepath.Dir(cfg.DBPath), filepath.Base(cfg.DBPath)+installPrefix
	names, err := cfg.dbFS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := cfg.dbFS.Remove(cfg.DBPath + installTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	if len(names) == 0 {
		return nil
	}
	r, err := durableLog(cfg)
	if err != nil {
		return err
	}
	for _, name := range names {
		file := filepath.Join(dir, name)
		index, err := strconv.ParseUint(strings.TrimPrefix(name, prefix), 16, 64)
		if err == nil && index == r.installed && r.mark.index < index {
			err = cfg.dbFS.Rename(file, cfg.DBPath)
		} else {
			err = cfg.dbFS.Remove(file)
		}
		if err != nil {
			return err
		}
	}
	return cfg.dbFS.SyncDir(dir)
}

// durableLog reads the log and makes durable what it has read: a record that only the page cache has must not be acted upon, as the next
// crash could leave the snapshot without it.
func durableLog(cfg *Config) (*replay, error) {
	r := newReplay(mark{})
	if fresh, err := noSegments(cfg.FS, cfg.dirs().wal()); err != nil || fresh {
		return r, err
	}
	w, err := wal.Open(cfg.FS, cfg.dirs().wal(), wal.Options{SegmentBytes: cfg.WALSegmentBytes, ReserveInline: true,
		Header: func() []wal.Record { return []wal.Record{r.id.record(), r.mark.record(), hardStateRecord(r.hard)} }}, r.record)
	if err != nil {
		return nil, err
	}
	return r, w.Close()
}
