package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Store is one member: the replicated log, the state it leads to, and the files of both. See doc.go.
type Store struct {
	cfg     Config
	began   time.Time // what times are counted from that are kept as numbers: a clock that is set moves none of them
	bounds  bounds
	id      identity
	metrics *metrics
	lock    io.Closer

	node       *node
	log        *logWriter
	apply      *applier
	checkpoint *checkpointer
	leases     *leaseClock
	waiters    *waiters
	ticker     *ticker
	reads      *readIndexes
	peers      Peers
	hashes     hashRing
	comparison *comparison
	quota      *quotaWatch
	syncs      *syncs // nil without Config.Trace

	// Published by their owners, read by anybody.
	view               atomic.Pointer[mvcc.View]          // apply
	cluster            atomic.Pointer[membership.Cluster] // apply
	lead               atomic.Pointer[leadership]         // node
	committed, applied atomic.Uint64                      // node, apply
	soleVoter, learner atomic.Bool                        // apply
	spaceLow, logFull  atomic.Bool                        // log
	sound              atomic.Pointer[soundness]          // apply
	clock              atomic.Int64                       // ticker: nanoseconds from began to the last tick
	elected            atomic.Int64                       // node: nanoseconds from began to when the leader became known

	versionRoom room // how much of the versions may stay in memory

	room sync.Mutex // held by who takes room on a disk that may be full: a checkpoint, or the log for its spare segment

	lastID        atomic.Uint64
	entryBytesMax int

	ready     chan struct{} // closed once the leader's first entry is applied here: the View then holds all that was acknowledged
	readyOnce sync.Once

	installing sync.Mutex // one snapshot is received at a time

	leadMu    sync.Mutex
	leadNext  chan struct{} // closed when leader or term change
	published chan struct{}
	removed   chan struct{}
	leaveOnce sync.Once
	left      atomic.Bool

	lostMu sync.Mutex
	lost   chan struct{} // closed while there has been no leader for long

	proposing atomic.Int64 // calls of Propose under way
	nodeCalls atomic.Int64 // of onNode, in the node's inbox
	closing   atomic.Bool
	drained   chan struct{} // capacity 1
	stop      chan struct{} // closed to end the goroutines
	stopped   chan struct{} // closed when they have ended
	ctx       context.Context
	cancel    context.CancelFunc // with stop
	running   sync.WaitGroup
	backups   sync.WaitGroup
	streams   atomic.Int32 // of backups: how many are under way
	closeOnce sync.Once
	closeErr  error

	failOnce sync.Once
	failed   chan struct{}
	failure  error // before failed is closed
}

// MemberID is this member's ID.
func (s *Store) MemberID() uint64 { return s.id.member }

// ClusterID is the cluster's ID.
func (s *Store) ClusterID() uint64 { return s.id.cluster }

// since is how long ago the store began, in nanoseconds.
func (s *Store) since(now time.Time) int64 { return int64(now.Sub(s.began)) }

// View is the state as it was last published. It never blocks.
func (s *Store) View() *mvcc.View { return s.view.Load() }

// ReadView is a View that holds everything acknowledged before the call. A leader that is the only voter has it at hand: nothing is
// acknowledged before it is published. All others ask for a read index. The error is ErrTimeout, ErrLeaderChanged, ErrStopped or the
// context's.
func (s *Store) ReadView(ctx context.Context) (*mvcc.View, error) {
	if v := s.viewAtHand(); v != nil {
		return v, nil
	}
	b := s.reads.join()
	select {
	case <-b.done:
		return s.view.Load(), b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, ErrStopped
	}
}

// viewAtHand is the published View of a leader that is the only voter, once it has applied an entry of its own term; or nil. The order of
// the looks matters: a member that votes for another one publishes that it does not lead before the vote goes out.
func (s *Store) viewAtHand() *mvcc.View {
	lead := s.lead.Load()
	if lead.leader != s.id.member || !s.soleVoter.Load() {
		return nil
	}
	if v := s.view.Load(); v.Term() == lead.term {
		return v
	}
	return nil
}

// HasLeader tells whether this member knows a leader.
func (s *Store) HasLeader() bool { return s.lead.Load().leader != 0 }

// LeaderLost gives a channel that is closed once there has been no leader for three election timeouts. After a leader was found again
// the next call gives a new one.
func (s *Store) LeaderLost() <-chan struct{} {
	s.lostMu.Lock()
	defer s.lostMu.Unlock()
	return s.lost
}

func (s *Store) loseLeader() {
	s.lostMu.Lock()
	defer s.lostMu.Unlock()
	select {
	case <-s.lost:
	default:
		close(s.lost)
	}
}

func (s *Store) regainLeader() {
	s.lostMu.Lock()
	defer s.lostMu.Unlock()
	select {
	case <-s.lost:
		s.lost = make(chan struct{})
	default:
	}
}

// Members are the members by ascending ID.
func (s *Store) Members() []membership.Member { return s.cluster.Load().Members() }

// Status describes this member.
func (s *Store) Status() Status {
	view, lead := s.View(), s.lead.Load()
	st := Status{
		MemberID: s.id.member, ClusterID: s.id.cluster,
		Leader: lead.leader, Term: lead.term,
		Committed: max(s.committed.Load(), s.applied.Load()), Applied: s.applied.Load(), Revision: view.Revision(),
		DBSize: s.checkpoint.db.Size(), DBSizeInUse: s.checkpoint.db.SizeInUse(), QuotaBytes: s.cfg.Quota.Shown(),
		ClusterVersion: view.ClusterVersion(), StorageVersion: backend.StorageVersionOf(view.ClusterVersion()),
		IsLearner: s.IsLearner(),
		Downgrade: DowngradeInfo{TargetVersion: view.Downgrade().Target, Enabled: view.Downgrade().Enabled},
	}
	if lead.leader == 0 {
		st.Errors = append(st.Errors, "etcdserver: no leader")
	}
	for _, a := range view.Alarms() {
		st.Errors = append(st.Errors, a.String())
	}
	if s.spaceLow.Load() {
		st.Errors = append(st.Errors, "no space left on the disk of the log")
	}
	return st
}

// CompactWait waits until the versions that a compaction to rev made dead are gone from memory and from bbolt.
func (s *Store) CompactWait(ctx context.Context, rev mvcc.Revision) error {
	w := compactWaiter{rev: rev, done: make(chan struct{})}
	s.apply.inbox.put(applyTask{do: func() {
		if a := s.apply; a.compacting || a.compacted < rev {
			a.compactWaiters = append(a.compactWaiters, w)
		} else {
			close(w.done)
		}
	}})
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrStopped
	}
	return s.checkpoint.removed(ctx)
}

// Failed is closed when the log could not be written: the store acknowledges nothing any more, and the process has to end. Err says why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is why Failed is closed.
func (s *Store) Err() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// fail gives up: what is on disk is not known any more, and must not be guessed.
func (s *Store) fail(err error) {
	if errors.Is(err, ErrStopped) {
		return
	}
	s.failOnce.Do(func() {
		s.failure = err
		s.closing.Store(true)
		close(s.failed)
		s.waiters.failAll(ErrStopped)
		s.cfg.OnEvent(Fatal{Err: err})
	})
}

// Close finishes the proposals under way, writes remaining lease times and a last checkpoint, and ends everything. It is idempotent.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.shutdown() })
	return s.closeErr
}

func (s *Store) shutdown() error {
	s.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.requestTimeout())
	defer cancel()
	var errs []error
	for s.proposing.Load() > 0 && ctx.Err() == nil && s.Err() == nil {
		select {
		case <-s.drained:
		case <-ctx.Done():
		case <-s.failed:
		}
	}
	_ = s.HandOver(ctx) // else the others find a leader after an election timeout
	if s.Err() == nil {
		// A checkpoint takes as long as it takes; the log would have what it lacks, but the next start is faster with it.
		if err := s.checkpoint.call(context.Background(), func() error { return s.checkpoint.write("shutdown") }); err != nil && !s.spaceLow.Load() {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.halt())...)
}

// halt ends the goroutines and closes the files as they are.
func (s *Store) halt() error {
	s.closing.Store(true)
	close(s.stop)
	s.cancel()
	s.running.Wait()
	s.node.end()
	close(s.stopped)
	s.waiters.failAll(ErrStopped)
	s.backups.Wait()
	s.log.finish()
	s.peers.Close()
	var errs []error
	if err := s.log.wal.Close(); err != nil && s.Err() == nil {
		errs = append(errs, fmt.Errorf("close the log: %w", err))
	}
	if err := s.checkpoint.db.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close the database: %w", err))
	}
	if err := s.lock.Close(); err != nil {
		errs = append(errs, fmt.Errorf("unlock data dir: %w", err))
	}
	return errors.Join(errs...)
}

// start starts the goroutines.
func (s *Store) start() {
	s.clock.Store(s.since(s.cfg.Now())) // deadlines count from here, however long it took to open
	s.node.mu.Unlock()
	s.running.Go(s.ticker.run)
	s.running.Go(s.node.run)
	s.running.Go(s.log.run)
	s.running.Go(s.apply.run)
	s.running.Go(s.checkpoint.run)
	if s.soleVoter.Load() {
		close(s.published) // Open does it, see settle
	} else {
		s.running.Go(s.publish)
	}
}
