package raftstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

func grant(t *testing.T, s *Store, id, ttl int64) {
	t.Helper()
	_, err := s.Propose(context.Background(), Command{Kind: mvcc.KindLeaseGrant,
		Request: &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: id, TTL: ttl}}})
	if err != nil {
		t.Fatal(err)
	}
}

// await polls for what other goroutines bring about; the clock of the test does not move meanwhile.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestLeaseExpires(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	grant(t, s, 1, 10)
	if _, err := tryPut(s, "a", "1", 1); err != nil {
		t.Fatal(err)
	}
	h.pass(9 * time.Second)
	if left, ok := s.LeaseRemaining(1); !ok || left != time.Second {
		t.Errorf("remaining %v, %t; want 1 s", left, ok)
	}
	if ttl, err := s.LeaseRenew(context.Background(), 1); ttl != 10 || err != nil {
		t.Errorf("renew: %d, %v", ttl, err)
	}
	h.pass(9 * time.Second)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q before its lease is over", got)
	}
	rev := s.View().Revision()
	h.pass(time.Second)
	await(t, "expiry", func() bool { return s.View().Revision() == rev+1 })
	if got := get(t, s, "a"); got != "<none>" {
		t.Errorf("a = %q after its lease is over", got)
	}
	if _, err := s.LeaseRenew(context.Background(), 1); !errors.Is(err, mvcc.ErrLeaseNotFound) {
		t.Errorf("renew after expiry: %v", err)
	}
}

// TestRenewWaitsForRevoke: a lease that is over and not revoked yet must not come back, and its end must have been applied.
func TestRenewWaitsForRevoke(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	grant(t, s, 1, 10)
	h.mu.Lock()
	h.now = h.now.Add(11 * time.Second)
	h.mu.Unlock()
	renewed := make(chan error, 1)
	go func() { _, err := s.LeaseRenew(context.Background(), 1); renewed <- err }()
	select {
	case err := <-renewed:
		t.Fatalf("renewal did not wait: %v", err)
	case h.ticks <- time.Time{}:
	}
	if err := <-renewed; !errors.Is(err, mvcc.ErrLeaseNotFound) {
		t.Errorf("renewal: %v", err)
	}
	if _, ok := s.View().Lease(1); ok {
		t.Error("the renewal was answered before the revocation was applied")
	}
}

// TestLeaseRemainingSurvivesRestart: at a graceful stop the time that is left goes into the log.
func TestLeaseRemainingSurvivesRestart(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	grant(t, s, 1, 100)
	h.pass(70 * time.Second)
	closeStore(t, s)
	h.mu.Lock()
	h.now = h.now.Add(time.Hour) // nobody could renew meanwhile
	h.mu.Unlock()
	s = h.open()
	defer closeStore(t, s)
	if left, ok := s.LeaseRemaining(1); !ok || left < 30*time.Second || left > 35*time.Second {
		t.Errorf("remaining %v, %t after the restart; want 30 s and an election timeout", left, ok)
	}
	if ttl, err := s.LeaseRenew(context.Background(), 1); ttl != 100 || err != nil {
		t.Fatalf("renew: %d, %v", ttl, err)
	}
	if left, _ := s.LeaseRemaining(1); left != 100*time.Second {
		t.Errorf("remaining %v after a renewal, want all of it", left)
	}
	if l, _ := s.View().Lease(1); l.Remaining != 0 {
		t.Errorf("the log still holds %d s of remaining time", l.Remaining)
	}
}

// TestLeaseCheckpointsPeriodically: a crash costs a long lease at most an interval.
func TestLeaseCheckpointsPeriodically(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	grant(t, s, 1, 3660)
	h.pass(2 * time.Minute)
	await(t, "lease checkpoint", func() bool { l, _ := s.View().Lease(1); return l.Remaining == 3540 })
}

// TestLeaseClockAgainstTwin: whatever happens, a lease is named when its time is over and not before.
func TestLeaseClockAgainstTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	c, now := newLeaseClock(1), time.Unix(0, 0)
	deadline := make(map[mvcc.LeaseID]time.Time)
	ttl := make(map[mvcc.LeaseID]int64)
	c.promote(now, 0)
	for range 20000 {
		id := mvcc.LeaseID(rng.IntN(50) + 1)
		switch rng.IntN(5) {
		case 0:
			if _, ok := ttl[id]; !ok {
				ttl[id] = int64(rng.IntN(30) + 1)
				deadline[id] = now.Add(time.Duration(ttl[id]) * time.Second)
				c.granted(id, ttl[id], 0, now)
			}
		case 1:
			if l := c.renew(id, now); l.found != (ttl[id] > 0) {
				t.Fatalf("renew of %d: twin knows %d", id, ttl[id])
			}
			if ttl[id] > 0 {
				deadline[id] = now.Add(time.Duration(ttl[id]) * time.Second)
			}
		case 2:
			if rng.IntN(4) == 0 {
				c.revokedLease(id)
				delete(ttl, id)
				delete(deadline, id)
			}
		default:
			now = now.Add(time.Duration(rng.IntN(1500)) * time.Millisecond)
			for _, id := range c.expired(now, 1000) {
				if d, ok := deadline[id]; !ok || d.After(now) {
					t.Fatalf("lease %d named at %v, its deadline is %v (%t)", id, now, d, ok)
				}
				c.revokedLease(id)
				delete(ttl, id)
				delete(deadline, id)
			}
			for id, d := range deadline {
				if !d.After(now) {
					t.Fatalf("lease %d was over at %v and not named at %v", id, d, now)
				}
			}
		}
	}
}

// TestPromoteSpreadsPileUp: leases that would all end at once after a change of leader do not use up the revocation rate.
func TestPromoteSpreadsPileUp(t *testing.T) {
	c, now := newLeaseClock(1), time.Unix(0, 0)
	const n = 5000
	for i := range n {
		c.granted(mvcc.LeaseID(i+1), 10, 0, now)
	}
	c.promote(now, time.Second)
	perSecond := make(map[int64]int)
	for i := range n {
		left, ok := c.timeLeft(mvcc.LeaseID(i+1), now)
		if !ok || left < 11*time.Second {
			t.Fatalf("lease %d has %v left", i+1, left)
		}
		perSecond[int64(left/time.Second)]++
	}
	for second, count := range perSecond {
		if count > leaseRevokeRate {
			t.Errorf("%d leases end in second %d", count, second)
		}
	}
	c.demote()
	if got := c.expired(now.Add(time.Hour), 10); len(got) != 0 {
		t.Errorf("a member that does not lead named %v", got)
	}
}

// TestLeaseAtAnotherLeader: who does not lead asks the leader, over again while it does not answer, and brings its verdict.
func TestLeaseAtAnotherLeader(t *testing.T) {
	leaderHarness := newHarness(t)
	leader := leaderHarness.open()
	defer closeStore(t, leader)
	grant(t, leader, 1, 10)
	if _, err := tryPut(leader, "a", "1", 1); err != nil {
		t.Fatal(err)
	}
	leaderHarness.pass(4 * time.Second)

	h, network := newHarness(t), &fakeNetwork{}
	h.adjust = func(c *Config) { c.Connect = network.connect }
	s := h.open()
	defer closeStore(t, s)
	follow(s, 42)
	failures := 2
	network.answer = func(ctx context.Context, id uint64, name string, request []byte) ([]byte, error) {
		if failures--; failures >= 0 {
			return nil, transport.ErrUnreachable
		}
		return leader.answer(ctx, name, request)
	}
	left, err := s.LeaseTimeToLive(context.Background(), 1, true)
	if err != nil || left.Left != 6*time.Second || left.Granted != 10 || len(left.Keys) != 1 || string(left.Keys[0]) != "a" {
		t.Errorf("time to live: %+v, %v", left, err)
	}
	if ttl, err := s.LeaseRenew(context.Background(), 1); ttl != 10 || err != nil {
		t.Errorf("renew: %d, %v", ttl, err)
	}
	if left, _ := leader.LeaseRemaining(1); left != 10*time.Second {
		t.Errorf("%v left after a renewal by way of another member", left)
	}
	if _, err := s.LeaseRenew(context.Background(), 2); !errors.Is(err, mvcc.ErrLeaseNotFound) {
		t.Errorf("renew of no lease: %v", err)
	}
	if _, err := s.LeaseTimeToLive(context.Background(), 2, false); !errors.Is(err, mvcc.ErrLeaseNotFound) {
		t.Errorf("time to live of no lease: %v", err)
	}
	if _, err := s.answer(context.Background(), callLeaseRenew, nil); status.Convert(err).Message() != ErrNotLeader.Error() {
		t.Errorf("a member that does not lead answered a renewal: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	network.answer = func(context.Context, uint64, string, []byte) ([]byte, error) { cancel(); return nil, ErrNotLeader }
	if _, err := s.LeaseRenew(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("renewal without an answer: %v", err)
	}
}

// TestLeaseThatCameAnew: while a member lagged, a lease was revoked and granted again under its ID, with another time. The snapshot says so.
func TestLeaseThatCameAnew(t *testing.T) {
	c, now := newLeaseClock(1), time.Unix(0, 0)
	c.granted(1, 5, 0, now)
	c.granted(2, 5, 0, now)
	ended := c.replace([]mvcc.Lease{{ID: 1, TTL: 3600}, {ID: 2, TTL: 5}}, now)
	if len(ended) != 1 {
		t.Errorf("%d leases have ended; want the first one", len(ended))
	}
	c.promote(now, 0)
	for id, want := range map[mvcc.LeaseID]time.Duration{1: time.Hour, 2: 5 * time.Second} {
		if left, ok := c.timeLeft(id, now); !ok || left != want {
			t.Errorf("lease %d has %v left, %t; want %v", id, left, ok, want)
		}
	}
}

// TestRenewalBesideCheckpoint: whoever renews a lease while a checkpoint of it is on its way has it cleared, which comes behind it in the log; and
// none is made while the clearing is on its way.
func TestRenewalBesideCheckpoint(t *testing.T) {
	c, now := newLeaseClock(1), time.Unix(0, 0)
	c.granted(1, 100, 0, now)
	c.promote(now, 0)
	now = now.Add(70 * time.Second)
	known := make(chan bool, 1)
	proposed := 0
	c.checkpoints(now, time.Minute, func([]*pb.LeaseCheckpoint) {
		proposed++
		go func() { known <- c.renew(1, now).checkpointed }()
		if c.mu.TryLock() {
			t.Error("a renewal may come between a checkpoint and its place in the log")
			c.mu.Unlock()
		}
	})
	if proposed != 1 {
		t.Fatalf("%d checkpoints", proposed)
	}
	if !<-known {
		t.Fatal("a renewal does not know of the checkpoint that is on its way")
	}
	now = now.Add(time.Second)
	c.checkpoints(now, time.Minute, func(got []*pb.LeaseCheckpoint) {
		t.Errorf("%v is behind the clearing that a renewal has proposed", got)
	})
	c.checkpointed(1, 30, now)
	c.checkpointed(1, 0, now)
	if c.renew(1, now).checkpointed {
		t.Error("the checkpoint is not cleared")
	}

	now = now.Add(70 * time.Second)
	c.settle(now)
	if c.renew(1, now).leading {
		t.Error("renewed behind the checkpoint for the next leader")
	}
	c.resume()
	if !c.renew(1, now).checkpointed {
		t.Error("a renewal does not know of the checkpoint for the next leader")
	}
	c.demote()
	c.promote(now, 0)
	if c.renew(1, now).checkpointed {
		t.Error("a checkpoint of a former term is on its way")
	}
}

// TestRenewalThatIsTooLate: a lease whose end was decided while a renewal had its checkpoint cleared is not renewed, or its owner would be
// told a time that it does not have.
func TestRenewalThatIsTooLate(t *testing.T) {
	c, now := newLeaseClock(1), time.Unix(0, 0)
	c.granted(1, 100, 0, now)
	c.promote(now, 0)
	c.checkpointed(1, 30, now)
	now = now.Add(99 * time.Second)
	if l := c.renew(1, now); l.expired || !l.checkpointed {
		t.Fatalf("a renewal in time: %+v", l)
	}
	now = now.Add(time.Second)
	if got := c.expired(now, 10); len(got) != 1 {
		t.Fatalf("%v are over", got)
	}
	c.checkpointed(1, 0, now)
	if l := c.renew(1, now); !l.expired {
		t.Error("the lease is renewed beside its revocation")
	}
	if left, _ := c.timeLeft(1, now); left > 0 {
		t.Errorf("%v are left", left)
	}
}

// TestClearedBehindPromotion: a leader may be elected before it knows that the renewal which its predecessor has answered is committed.
func TestClearedBehindPromotion(t *testing.T) {
	c, now := newLeaseClock(1), time.Unix(0, 0)
	c.granted(1, 100, 0, now)
	c.checkpointed(1, 30, now)
	c.promote(now, time.Second)
	now = now.Add(2 * time.Second)
	c.checkpointed(1, 0, now)
	if left, _ := c.timeLeft(1, now); left < 100*time.Second {
		t.Errorf("%v are left of a lease that was renewed", left)
	}
}

// TestShortLeasesAlike: members with different election timeouts, as while it is changed on one after the other, hold equal leases: the
// least is that of the one that proposes, and that of the leader's clock.
func TestShortLeasesAlike(t *testing.T) { synctest.Test(t, testShortLeasesAlike) }

func testShortLeasesAlike(t *testing.T) {
	c := newCluster(t, 3, func(i int, cfg *Config) {
		if i == 0 {
			cfg.ElectionTicks = 200 // 2 s
		}
	})
	c.leader()
	for i, want := range []int64{3, 1} {
		grant(t, c.stores[i], int64(i)+1, 1)
		await(t, "the lease", func() bool { _, ok := c.stores[i].View().Lease(mvcc.LeaseID(i) + 1); return ok })
		if l, _ := c.stores[i].View().Lease(mvcc.LeaseID(i) + 1); l.TTL != want {
			t.Errorf("a lease of 1 s by way of member %d is one of %d s; want %d", i, l.TTL, want)
		}
	}
	c.converge()
	for i := range c.stores { // what was loaded is what the others have
		if err := c.stores[i].Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.kill(i)
		c.start(i)
		c.leader()
	}
	checkpoint := leaseCheckpoint([]*pb.LeaseCheckpoint{{ID: 1, Remaining_TTL: 1}, {ID: 2, Remaining_TTL: 1}}, 0)
	if err := c.stores[0].proposeOwn(t.Context(), checkpoint); err != nil { // it is folded into the hash
		t.Fatal(err)
	}
	c.converge()
}

// TestRequestIDs: two starts have no request ID in common, also where the clock was set back between them.
func TestRequestIDs(t *testing.T) {
	h := newHarness(t)
	seen := make(map[uint64]bool)
	for start := range 2 {
		s := h.open()
		for range 1000 {
			id := s.nextID()
			if seen[id] || id == 0 {
				t.Fatalf("start %d has ID %x, which was there", start, id)
			}
			seen[id] = true
		}
		if err := s.halt(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoLeaseEndsBeforeTheTermBegins: a leader that has applied nothing of its own term revokes nothing: a renewal which its predecessor has
// acknowledged may be in what is still to be applied.
func TestNoLeaseEndsBeforeTheTermBegins(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	grant(t, s, 7, 10)
	now, later := *s.lead.Load(), *s.lead.Load()
	later.term++
	ends := s.cfg.Now().Add(time.Hour)
	s.lead.Store(&later)
	(&ticker{s: s}).lookAtLeases(ends)
	s.lead.Store(&now)
	if n := testutil.ToFloat64(s.metrics.leaseExpired); n != 0 {
		t.Errorf("%v leases were revoked before the term began", n)
	}
	(&ticker{s: s}).lookAtLeases(ends)
	if n := testutil.ToFloat64(s.metrics.leaseExpired); n != 1 {
		t.Errorf("%v leases were revoked in the term, want 1", n)
	}
}
