package raftstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// A restore makes the data dir of one member of a new cluster from a snapshot, of ours or of etcd 3.5 to 3.7, in these steps:
//
//	1 copy the snapshot to member.restoring/snap/db, compare its checksum, sync
//	2 look at all of it: pages, sums, every row
//	3 one transaction of bbolt: the members of the new cluster, index and term, the compaction
//	4 a log in member.restoring/wal, or in a directory of its own, that says what bbolt holds, and has no entries
//	5 rename member.restoring to member, sync the data dir
//
// A crash before 5 leaves member.restoring, and Open and Restore refuse the data dir as long as it is there, and Restore a directory for
// the log that is not empty; from 5 on it leaves a whole
// member, or member.restoring still. All members that are restored from one file with the same flags begin at the same index, in the
// same term and with the same rolling hash; of different files they have different ones, which the first comparison finds.

// RestoreConfig says what to restore, and into which cluster. The zero value of a field means its default.
type RestoreConfig struct {
	// Snapshot is the file. Required.
	Snapshot string
	// DataDir must be empty, or not there. Required.
	DataDir string
	// WALDir is where the log is to be, as in Config. If it is given, it must be empty, or not there.
	WALDir string
	// Name, InitialCluster, ClusterToken and PeerURLs are as in Config.
	Name           string
	InitialCluster string
	ClusterToken   string
	PeerURLs       []string
	// SkipHashCheck takes a file that has no checksum behind it, as one that was copied from a data dir, or a wrong one.
	SkipHashCheck bool
	// BumpRevision is how far the new cluster's revision is ahead of the snapshot's, all before counting as compacted: who watched the
	// former cluster, which may have been ahead of the snapshot, is told to list again. 0: the cluster goes on from the snapshot's revision.
	BumpRevision uint64

	// FS holds all files. Default vfs.OS.
	FS vfs.FS
	// WALSegmentBytes is as in Config.
	WALSegmentBytes int64
}

// Restored is what came of a restore.
type Restored struct {
	MemberID, ClusterID types.ID
	SnapshotRevision    mvcc.Revision
	Revision            mvcc.Revision // the new cluster begins here
	Compacted           mvcc.Revision // -1: never
	Leases              int
	Alarms              int
}

// Errors of Restore that a flag goes past. A damaged file is a *CorruptError, one that a newer version wrote is ErrNewerFormat.
var (
	// ErrNoChecksum: there is no checksum behind the file.
	ErrNoChecksum = errors.New("the snapshot has no checksum: it is not whole, or was copied from a data dir")
	// ErrWrongChecksum: the file is not what was sent.
	ErrWrongChecksum = errors.New("the snapshot is not what its checksum was made of")
	// ErrRestoring: the data dir holds a restore that did not end.
	ErrRestoring = errors.New("the data dir holds a restore that did not end; remove it and restore again")
)

// restoreTerm is the term of what a restore makes; the first election is for the next one.
const restoreTerm = 1

func restoringDir(dataDir string) string { return path.Join(dataDir, "member.restoring") }

// restore is one Restore under way.
type restore struct {
	cfg    *RestoreConfig
	dir    string // member.restoring
	db     string
	start  membership.Start
	conf   *raftpb.ConfState
	survey backend.Survey
	out    Restored
}

// EnsureDefaults fills the zero fields.
func (c *RestoreConfig) EnsureDefaults() {
	member := Config{Name: c.Name, InitialCluster: c.InitialCluster, ClusterToken: c.ClusterToken, PeerURLs: c.PeerURLs}
	member.EnsureDefaults()
	c.Name, c.InitialCluster, c.ClusterToken, c.PeerURLs = member.Name, member.InitialCluster, member.ClusterToken, member.PeerURLs
	if c.FS == nil {
		c.FS = vfs.OS
	}
}

// Restore makes a data dir that Open starts from. What it has made is durable when it returns; after an error nothing of it is left. It
// reads the snapshot three times and needs little memory.
func Restore(cfg RestoreConfig) (Restored, error) {
	cfg.EnsureDefaults()
	r := &restore{cfg: &cfg, dir: restoringDir(cfg.DataDir)}
	if err := r.check(); err != nil {
		return Restored{}, err
	}
	err := r.run()
	if err != nil {
		err = errors.Join(typedError(cfg.dirs(), err), removeAll(cfg.FS, r.dir), r.removeLog())
	}
	return r.out, err
}

// check is what can be wrong before anything is made.
func (r *restore) check() (err error) {
	cfg := r.cfg
	r.start, err = membership.Bootstrap(context.Background(), membership.Flags{Name: cfg.Name,
		InitialCluster: cfg.InitialCluster, Token: cfg.ClusterToken, PeerURLs: cfg.PeerURLs})
	if err != nil {
		return err
	}
	if cfg.WALDir != "" {
		if names, err := cfg.FS.List(cfg.WALDir); err == nil && len(names) > 0 {
			return fmt.Errorf("wal dir %s is not empty: it holds %s", cfg.WALDir, names[0])
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	names, err := cfg.FS.List(cfg.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case slices.Contains(names, path.Base(r.dir)):
		return fmt.Errorf("%w: %s", ErrRestoring, r.dir)
	case len(names) > 0:
		return fmt.Errorf("data dir %s is not empty: it holds %s", cfg.DataDir, names[0])
	}
	return nil
}

func (r *restore) run() error {
	cfg := r.cfg
	r.db = path.Join(r.dir, "snap", "db")
	if err := cfg.FS.MkdirAll(path.Dir(r.db)); err != nil {
		return err
	}
	if err := r.copy(); err != nil {
		return err
	}
	if err := r.rewrite(); err != nil {
		return err
	}
	if err := r.makeLog(); err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	if err := cfg.FS.SyncDir(path.Dir(r.db)); err != nil {
		return err
	}
	if err := cfg.FS.Rename(r.dir, cfg.dirs().member()); err != nil {
		return err
	}
	return cfg.FS.SyncDir(cfg.DataDir)
}

// copy is step 1.
func (r *restore) copy() error {
	f, err := openSnapshot(r.cfg.FS, r.cfg.Snapshot)
	if err != nil {
		return err
	}
	defer f.file.Close()
	if f.sum == nil && !r.cfg.SkipHashCheck {
		return ErrNoChecksum
	}
	sum := sha256.New()
	if err := writeFile(r.cfg.FS, r.db, f.size, io.TeeReader(f.content(), sum)); err != nil {
		return fmt.Errorf("copy the snapshot: %w", err)
	}
	if !r.cfg.SkipHashCheck && !bytes.Equal(sum.Sum(nil), f.sum) {
		return ErrWrongChecksum
	}
	return nil
}

// rewrite is steps 2 and 3.
func (r *restore) rewrite() error {
	err := r.open(backend.Options{ReadOnly: true}, r.look)
	if err != nil {
		return err
	}
	b, err := r.batch()
	if err != nil {
		return err
	}
	return r.open(backend.Options{FS: r.cfg.FS}, func(db *backend.DB) error { return db.Restore(b) })
}

func (r *restore) open(o backend.Options, do func(*backend.DB) error) error {
	db, err := backend.Open(r.db, o)
	if err != nil {
		return r.blame(err)
	}
	return r.blame(errors.Join(do(db), db.Close()))
}

// blame says that the snapshot is damaged, and not its copy.
func (r *restore) blame(err error) error {
	var c *backend.CorruptError
	if errors.As(err, &c) {
		return &CorruptError{File: r.cfg.Snapshot, Offset: c.Offset, Reason: c.Reason}
	}
	return err
}

// look is step 2.
func (r *restore) look(db *backend.DB) (err error) {
	if r.survey, err = db.Survey(); err != nil {
		return err
	}
	v := &r.survey
	if !backend.Readable(v.StorageVersion) {
		return fmt.Errorf("%s has storage version %s, this program reads up to %s: %w", r.cfg.Snapshot, v.StorageVersion, backend.StorageVersion, ErrNewerFormat)
	}
	r.out = Restored{MemberID: r.start.Self.ID, ClusterID: r.start.ClusterID, SnapshotRevision: v.Revision, Revision: v.Revision,
		Compacted: max(v.CompactScheduled, v.CompactFinished), Leases: len(v.Leases), Alarms: len(v.Alarms)}
	if bump := r.cfg.BumpRevision; bump > 0 {
		if bump > uint64(math.MaxInt64-v.Revision) {
			return fmt.Errorf("the snapshot is at revision %d: there are no %d revisions behind it", v.Revision, bump)
		}
		r.out.Revision += mvcc.Revision(bump)
		r.out.Compacted = r.out.Revision
	}
	return nil
}

// batch is all that is not rows. The index is that of etcd's restore, which counts a change of the membership for each member.
func (r *restore) batch() (backend.Batch, error) {
	v := &r.survey
	cluster := membership.NewCluster(r.start.ClusterID, r.start.Members, nil)
	r.conf = cluster.ConfState()
	b := backend.Batch{
		Index: uint64(len(r.start.Members)), Term: restoreTerm, Hash: v.Mix(r.out.Revision),
		CompactScheduled: r.out.Compacted, CompactFinished: v.CompactFinished,
		ClusterVersion: v.ClusterVersion, Downgrade: v.Downgrade, Members: make(map[string][]byte),
	}
	var err error
	if b.ConfState, err = json.Marshal(r.conf); err != nil {
		return b, fmt.Errorf("marshal conf state: %w", err)
	}
	for _, m := range r.start.Members {
		if b.Members[m.ID.String()], err = json.Marshal(m); err != nil {
			return b, fmt.Errorf("marshal member: %w", err)
		}
	}
	for _, a := range v.Alarms {
		row, err := proto.Marshal(a)
		if err != nil {
			return b, fmt.Errorf("marshal alarm: %w", err)
		}
		b.Alarms = append(b.Alarms, row)
	}
	return b, nil
}

// makeLog is step 4.
func (r *restore) makeLog() error {
	index := uint64(len(r.start.Members))
	w, err := wal.Open(r.cfg.FS, r.walDir(), wal.Options{SegmentBytes: r.cfg.WALSegmentBytes, ReserveInline: true,
		Header: func() []wal.Record {
			return []wal.Record{
				identity{member: uint64(r.start.Self.ID), cluster: uint64(r.start.ClusterID)}.record(),
				mark{index: index, term: restoreTerm, conf: r.conf}.record(),
				hardStateRecord(&raftpb.HardState{Term: new(uint64(restoreTerm)), Commit: new(index)}),
			}
		}}, nil)
	if err != nil {
		return err
	}
	return w.Close()
}

func (c *RestoreConfig) dirs() Dirs { return Dirs{Data: c.DataDir, WAL: c.WALDir} }

// walDir is where the log is made.
func (r *restore) walDir() string {
	if r.cfg.WALDir != "" {
		return r.cfg.WALDir
	}
	return path.Join(r.dir, "wal")
}

// removeLog removes what was made outside of the data dir; the directory was empty before, and stays.
func (r *restore) removeLog() error {
	names, err := r.cfg.FS.List(r.cfg.WALDir)
	if r.cfg.WALDir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		err = errors.Join(err, r.cfg.FS.Remove(path.Join(r.cfg.WALDir, n)))
	}
	return err
}

// refuseRestoring finds a restore that did not end.
func refuseRestoring(filesystem vfs.FS, dataDir string) error {
	_, err := filesystem.Stat(restoringDir(dataDir))
	switch {
	case err == nil:
		return ErrRestoring
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}
