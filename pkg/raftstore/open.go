package raftstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// Open opens the data dir, or begins a new member in an empty one: lock it, load the checkpoint, replay the log behind it, start. When
// it returns, everything that was ever acknowledged is in View. The error fits into one line.
func Open(cfg Config) (*Store, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := &opening{began: time.Now(), trusting: true}
	s, err := o.open(cfg)
	if errors.Is(err, errNotCompacted) {
		o.undo()
		o = &opening{began: o.began}
		s, err = o.open(cfg)
	}
	if err != nil {
		o.undo()
		return nil, plainError(cfg.dirs(), err)
	}
	s.start()
	s.settle()
	return s, nil
}

// opening is one Open under way.
type opening struct {
	began   time.Time
	s       *Store
	db      *backend.DB
	wal     *wal.WAL
	content backend.Content
	conf    *raftpb.ConfState // of content
	replay  *replay
	held    heldEntries
	applied int                 // entries of the log
	untidy  int                 // bytes of those since tidy
	boot    []membership.Member // of a new data dir
	running []membership.Member // of the cluster that is joined
	// What is dead by a compaction that stands in the log is not loaded; trusting, that replaying it comes to as much.
	trusting bool
	ahead    mvcc.Revision
}

func (o *opening) open(cfg Config) (*Store, error) {
	s := newStore(cfg)
	o.s = s
	if err := o.lockDirs(); err != nil {
		return nil, err
	}
	if err := o.openDatabase(); err != nil {
		return nil, err
	}
	if err := o.openLog(); err != nil {
		return nil, err
	}
	if err := o.loadCheckpoint(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(cfg.Quota.Shown())
	log, applied, err := o.catchUp()
	if err != nil {
		return nil, err
	}
	if err := s.metrics.register(cfg.Registerer, s.id); err != nil {
		return nil, err
	}
	if s.apply.expelled() {
		return nil, ErrRemoved
	}
	s.apply.membersChanged()
	if err := o.makeNode(log, applied); err != nil {
		return nil, err
	}
	if err := o.connect(); err != nil {
		return nil, err
	}
	return s, o.compareWithOthers()
}

func newStore(cfg Config) *Store {
	s := &Store{cfg: cfg, bounds: boundsOf(cfg.Memory.Limit), leases: newLeaseClock(leaseTTLMin(&cfg)), waiters: newWaiters(),
		ready: make(chan struct{}), lost: make(chan struct{}), leadNext: make(chan struct{}), drained: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}), published: make(chan struct{}), removed: make(chan struct{}), failed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lead.Store(&leadership{})
	s.apply = newApplier(s)
	if cfg.Trace {
		s.syncs = &syncs{}
	}
	now := cfg.Now()
	s.began = now
	s.ticker = &ticker{s: s, checkpointed: now, versioned: now}
	s.reads = &readIndexes{s: s}
	s.peers = nobody{}
	s.comparison = &comparison{s: s, hashedAt: now, rowsAt: now, compactedAt: now}
	s.sound.Store(newSoundness())
	return s
}

// undo closes what is open.
func (o *opening) undo() {
	if o.s != nil {
		o.s.peers.Close()
	}
	if o.wal != nil {
		o.wal.Close()
	}
	if o.db != nil {
		o.db.Close()
	}
	if o.s != nil && o.s.lock != nil {
		o.s.lock.Close()
	}
}

func (o *opening) lockDirs() (err error) {
	cfg := &o.s.cfg
	if err := refuseRestoring(cfg.FS, cfg.DataDir); err != nil {
		return err
	}
	if err := cfg.FS.MkdirAll(cfg.dirs().member()); err != nil {
		return err
	}
	if o.s.lock, err = cfg.dirs().lock(cfg.FS); err != nil {
		return err
	}
	return cfg.dirs().misplaced(cfg.FS)
}

// openDatabase opens bbolt and finds out at which index it is.
func (o *opening) openDatabase() (err error) {
	s := o.s
	if err := finishInstall(&s.cfg); err != nil {
		return err
	}
	if o.db, err = backend.Open(s.cfg.DBPath, backend.Options{FS: s.cfg.dbFS, DiskFree: s.cfg.diskFree, FreelistBytes: s.cfg.freelistBytes,
		MemoryLocked: s.cfg.MemoryLocked}); err != nil {
		return err
	}
	o.content.Index, o.content.Term, err = o.db.Applied()
	return err
}

// loadCheckpoint rebuilds state and membership from bbolt.
func (o *opening) loadCheckpoint() (err error) {
	s := o.s
	if o.trusting {
		o.ahead = o.held.compacted
	}
	s.versionRoom.set(s.cfg.Memory.Room(compact.MemoryStats{}))
	if o.content, s.apply.state, s.apply.cluster, err = loadState(&s.cfg, o.db, o.db.Rows(), o.ahead); err == nil {
		o.conf = s.apply.cluster.ConfState()
	}
	return err
}

// errNotCompacted: a compaction that stands in the log was refused when it was applied, as of a revision that had not come yet, and what
// it would have made dead was not loaded.
var errNotCompacted = errors.New("a compaction in the log came to nothing")

// loadState rebuilds state and membership from a file. rows are where its rows will be read when the state is in use, ahead is as in
// mvcc.Loader.
func loadState(cfg *Config, db *backend.DB, rows mvcc.Rows, ahead mvcc.Revision) (content backend.Content, state *mvcc.State, cluster *membership.Cluster, err error) {
	err = db.Load(func(c backend.Content, parts []iter.Seq2[mvcc.Row, error]) error {
		content = c
		if !backend.Readable(c.StorageVersion) {
			return nil
		}
		if c.Index > 0 && !c.Trusted {
			return errUntrusted
		}
		cfg.Loading.begin(loadingRows, int64(c.Rows))
		l := mvcc.Loader{Index: c.Index, Term: c.Term, Hash: c.Hash, CompactScheduled: c.CompactScheduled, CompactFinished: c.CompactFinished,
			CompactAhead: ahead, Rows: cfg.Loading.count(parts, cfg.OnEvent), Readers: backend.Readers(), RowsHint: c.Rows,
			RowsEvicted: cfg.Memory.LoadEvicted(c.Rows, db.SizeInUse()), Leases: c.Leases, Alarms: c.Alarms, ClusterVersion: c.ClusterVersion, Auth: c.Auth}
		if c.Downgrade != nil {
			var d DowngradeInfo
			if err := json.Unmarshal(c.Downgrade, &d); err != nil {
				return fmt.Errorf("decode downgrade: %w", err)
			}
			l.Downgrade = mvcc.Downgrade{Enabled: d.Enabled, Target: d.TargetVersion}
		}
		if state, err = mvcc.Load(l, mvcc.Options{LeaseTTLMin: leaseTTLFloor, Rows: rows}); err != nil {
			return err
		}
		cluster, err = clusterOf(c)
		return err
	})
	if v := content.StorageVersion; err == nil && !backend.Readable(v) {
		err = fmt.Errorf("%s has storage version %s, this program reads up to %s: %w", db.Path(), v, backend.StorageVersion, ErrNewerFormat)
	}
	return content, state, cluster, err
}

// errUntrusted: nobody but this package writes to the database of a data dir, and it writes sums with every index.
var errUntrusted = errors.New("the applied index is not the one that the checksums belong to")

// leaseTTLMin is etcd's: one and a half election timeouts, in whole seconds. Members may differ in it, as while the timeout is changed on one
// after the other; so it is for who proposes a lease, and for the clock, and the state machine has leaseTTLFloor.
func leaseTTLMin(cfg *Config) int64 {
	ttl := time.Duration(3*cfg.ElectionTicks/2) * cfg.TickInterval
	return int64(math.Ceil(ttl.Seconds()))
}

// alone tells whether this member is the only one, and votes.
func (s *Store) alone(c *membership.Cluster) bool {
	conf := c.ConfState()
	return len(conf.Learners) == 0 && len(conf.Voters) == 1 && conf.Voters[0] == s.id.member
}

func clusterOf(c backend.Content) (*membership.Cluster, error) {
	var members []membership.Member
	for id, row := range c.Members {
		var m membership.Member
		if err := json.Unmarshal(row, &m); err != nil {
			return nil, fmt.Errorf("decode member %s: %w", id, err)
		}
		members = append(members, m)
	}
	var removed []types.ID
	for _, text := range c.MembersRemoved {
		id, err := types.IDFromString(text)
		if err != nil {
			return nil, fmt.Errorf("decode removed member %q: %w", text, err)
		}
		removed = append(removed, id)
	}
	return membership.NewCluster(0, members, removed), nil
}

// openLog replays the WAL and finds out who we are.
func (o *opening) openLog() error {
	s := o.s
	cfg := &s.cfg
	fresh, err := noSegments(cfg.FS, cfg.dirs().wal())
	if err != nil {
		return err
	}
	if fresh {
		if o.content.Index > 0 {
			return cfg.dirs().missing(o.content.Index)
		}
		if err := o.bootstrap(); err != nil {
			return err
		}
	}
	cfg.Loading.begin(loadingLog, 0)
	o.replay = newReplay(mark{index: o.content.Index, term: o.content.Term})
	o.held.bytesMax = cmp.Or(cfg.heldBytes, s.bounds.committed)
	o.replay.take = o.held.take
	raftLog := &raftLog{}
	s.log = newLogWriter(s, raftLog)
	o.wal, err = wal.Open(cfg.FS, cfg.dirs().wal(), wal.Options{
		SegmentBytes: cfg.WALSegmentBytes,
		Header:       s.log.header,
		OnWrite: func(bytes int, took time.Duration) {
			if s.metrics != nil {
				s.metrics.walWrote(bytes, took)
			}
		},
		OnFsync: func(d time.Duration) {
			if s.metrics != nil { // nil while the log opens
				s.fsynced(d)
			}
		},
	}, o.replay.record)
	if err != nil {
		return err
	}
	s.log.wal = o.wal
	s.entryBytesMax = min(cfg.MaxRequestBytes, s.log.appendMax()-walEntryOverhead)
	s.bounds.batch = min(s.bounds.batch, s.log.appendMax()/2) // own proposals and those of others come together
	if fresh {
		return nil
	}
	if err := o.replay.finish(cfg.dirs(), cfg.DBPath); err != nil {
		return err
	}
	s.id = o.replay.id
	if o.replay.empty() && o.content.Index == 0 { // a crash between the first segment and the first entry
		begun := s.id
		if err := o.bootstrap(); err != nil {
			return err
		}
		if s.id != begun {
			return fmt.Errorf("the data dir was begun for member %s of cluster %s, and these flags make member %s of cluster %s; remove it",
				types.ID(begun.member), types.ID(begun.cluster), types.ID(s.id.member), types.ID(s.id.cluster))
		}
	}
	return nil
}

// bootstrap decides who the members of a new cluster are.
func (o *opening) bootstrap() error {
	cfg := &o.s.cfg
	if cfg.ClusterState == "existing" {
		return o.join()
	}
	start, err := membership.Bootstrap(context.Background(), membership.Flags{Name: cfg.Name,
		InitialCluster: cfg.InitialCluster, Token: cfg.ClusterToken, PeerURLs: cfg.PeerURLs})
	if err != nil {
		return err
	}
	if err := o.checkNotStarted(start); err != nil {
		return err
	}
	o.boot = start.Members
	o.s.id = identity{member: uint64(start.Self.ID), cluster: uint64(start.ClusterID)}
	return nil
}

// makeNode makes raft and the rest of the goroutines' state.
func (o *opening) makeNode(log *raftLog, applied uint64) error {
	s := o.s
	node, err := newNode(s, log, applied)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	if o.boot != nil {
		peers := make([]raft.Peer, 0, len(o.boot))
		for _, m := range o.boot {
			context, err := json.Marshal(membership.ChangeContext{Member: m})
			if err != nil {
				return fmt.Errorf("marshal member: %w", err)
			}
			peers = append(peers, raft.Peer{ID: uint64(m.ID), Context: context})
		}
		if err := node.raft.Bootstrap(peers); err != nil {
			return fmt.Errorf("bootstrap raft: %w", err)
		}
		s.soleVoter.Store(len(peers) == 1)
	}
	if !s.cfg.NoTickAdvance && !s.soleVoter.Load() { // a leader that is there makes itself known within a tick
		for range s.cfg.ElectionTicks - 2 {
			node.raft.Tick()
		}
	}
	s.node = node
	s.lastID.Store(s.cfg.firstID) // the next one is the first: 0 is no ID
	s.reads.request = rand.Uint64N(1 << 63)
	s.quota = newQuotaWatch(s, s.View())
	s.checkpoint = newCheckpointer(s, o.db)
	s.checkpoint.last = mark{index: o.content.Index, term: o.content.Term, conf: o.conf}
	s.checkpoint.lastAt = s.cfg.Now()
	size := s.log.wal.GivenBytes()
	s.checkpoint.growth = growth{size: size, at: s.checkpoint.lastAt}
	s.checkpoint.walSize = size - o.replay.bytes
	s.checkpoint.burst.Store(s.checkpoint.walSize + s.cfg.Checkpoints.BurstBytes)
	s.metrics.database(o.db.Size(), o.db.SizeInUse())
	return nil
}

// connect opens the way to the others.
func (o *opening) connect() error {
	s := o.s
	peers, err := s.cfg.Connect(s.id.member, s.id.cluster, peerHandler{s})
	if err != nil {
		return fmt.Errorf("connect to the other members: %w", err)
	}
	s.peers = peers
	if len(s.Members()) == 0 { // joining: the membership comes with the log, from one of these
		s.peers.SetPeers(peersOf(o.running))
		return nil
	}
	s.setPeers()
	return nil
}

// settle waits until a sole voter leads and has applied its log, and publishes who it is.
func (s *Store) settle() {
	if !s.soleVoter.Load() {
		return
	}
	timer := time.NewTimer(s.cfg.requestTimeout())
	defer timer.Stop()
	select {
	case <-s.ready:
	case <-s.failed:
		return
	case <-timer.C: // a disk that is full or slow: ReadView goes on waiting
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.requestTimeout())
	defer cancel()
	// Neither is needed to serve, and a full disk must not keep the operator out; the next start tries again.
	if wanted := clusterVersionWanted(s.View().Downgrade()); s.View().ClusterVersion() != wanted {
		_ = s.proposeOwn(ctx, clusterVersionSet(wanted))
	}
	s.metrics.clusterVersionIs(s.View().ClusterVersion())
	_ = s.publishSelf(ctx)
}

// plainError names the data dir.
func plainError(d Dirs, err error) error {
	return fmt.Errorf("open data dir %s: %w", d.Data, typedError(d, err))
}

// typedError gives corruption and newer formats their one type each, whichever package found them.
func typedError(d Dirs, err error) error {
	var inWAL *wal.CorruptError
	var inDB *backend.CorruptError
	var record *recordError
	switch {
	case err == nil, errors.Is(err, ErrNewerFormat):
		return err
	case errors.As(err, &record):
		return &CorruptError{File: fmt.Sprintf("%s/%016x.wal", d.wal(), record.pos.Segment), Offset: record.pos.Offset, Reason: record.err.Error()}
	case errors.As(err, &inWAL):
		return &CorruptError{File: inWAL.File, Offset: inWAL.Offset, Reason: inWAL.Reason}
	case errors.As(err, &inDB):
		return &CorruptError{File: inDB.File, Offset: inDB.Offset, Reason: inDB.Reason}
	case errors.Is(err, wal.ErrNewerFormat):
		return fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	return err
}
