package raftstore

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// leaseCluster is three members whose clocks the test moves on by what it adds to ahead. Raft's time is another one.
func leaseCluster(t *testing.T, checkpointInterval time.Duration) (c *cluster, ahead *atomic.Int64) {
	ahead = new(atomic.Int64)
	return newCluster(t, 3, func(_ int, cfg *Config) {
		cfg.LeaseCheckpointInterval = checkpointInterval
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}), ahead
}

// awaitLook waits until the ticker has looked at the leases by the time that it is now.
func awaitLook(t *testing.T, s *Store) {
	t.Helper()
	first := s.since(s.cfg.Now())
	for range 2 { // the second tick comes after the end of the first
		await(t, "a tick", func() bool { return s.clock.Load() > first })
		first = s.clock.Load()
	}
}

// wantLeases awaits that all members have so many.
func (c *cluster) wantLeases(n int) {
	c.t.Helper()
	for _, s := range c.stores {
		await(c.t, fmt.Sprintf("%d leases", n), func() bool { return len(s.View().Leases()) == n })
	}
}

// TestLeaseCarriedOver: a new leader counts on from what the log says is left of a lease, or from the whole of it if the log says nothing,
// and gives its owner the time of an election on top; that is when it ends, and not before.
func TestLeaseCarriedOver(t *testing.T) {
	for _, checkpoints := range []bool{false, true} {
		runTimeless(t, fmt.Sprintf("checkpoints %v", checkpoints), func(t *testing.T) {
			interval, left := time.Hour, 60*time.Second
			if checkpoints {
				interval, left = 10*time.Second, 20*time.Second
			}
			c, ahead := leaseCluster(t, interval)
			leader := c.leader()
			grant(t, c.stores[leader], 1, 60)
			c.wantLeases(1) // who leads next may apply the grant only then
			ahead.Add(int64(40 * time.Second))
			if checkpoints {
				for _, s := range c.stores {
					await(t, "a checkpoint of the lease", func() bool { l, _ := s.View().Lease(1); return l.Remaining > 0 })
				}
			}
			next := c.follower()
			if err := c.stores[leader].MoveLeader(t.Context(), c.stores[next].id.member); err != nil {
				t.Fatal(err)
			}
			got, ok := c.stores[next].LeaseRemaining(1)
			if extend := c.stores[next].cfg.electionTimeout(); !ok || got <= left-time.Second || got > left+extend {
				t.Errorf("%v are left at the new leader, %v; want %v and at most %v", got, ok, left, extend)
			}
			if _, ok := c.stores[leader].LeaseRemaining(1); ok {
				t.Error("the clock of the former leader runs on")
			}
			ahead.Add(int64(left - 2*time.Second))
			awaitLook(t, c.stores[next])
			put(t, c.stores[leader], "a", "1") // behind what the look has proposed
			c.converge()
			c.wantLeases(1)
			ahead.Add(int64(3 * time.Second))
			c.wantLeases(0)
			c.converge()
		})
	}
}

// TestDeposedLeaderRevokesNothing: a leader that is cut off finds its leases over and proposes their ends; those never count, neither as
// the entries in its log nor as proposals that reach the next leader.
func TestDeposedLeaderRevokesNothing(t *testing.T) { synctest.Test(t, testDeposedLeaderRevokesNothing) }

func testDeposedLeaderRevokesNothing(t *testing.T) {
	const n = 50
	c, ahead := leaseCluster(t, time.Hour)
	leader := c.leader()
	deposed := c.stores[leader]
	for id := range int64(n) {
		grant(t, deposed, id+1, 10)
	}
	c.converge()
	term := deposed.lead.Load().term
	c.net.isolate(deposed.id.member)
	ahead.Add(int64(11 * time.Second))
	await(t, "the ends of the leases", func() bool { return c.members[leader].saw(fmt.Sprintf("%d leases expired", n)) })
	next := c.stores[c.leader(leader)]
	for id := range int64(n) {
		if ttl, err := next.LeaseRenew(t.Context(), mvcc.LeaseID(id+1)); ttl != 10 || err != nil {
			t.Fatalf("renewal at the next leader: %d, %v", ttl, err)
		}
	}
	c.net.heal()
	c.leader()
	for id := range int64(n) { // as if they had been under way
		deposed.proposeUnwatched(mvcc.FrameLeaseExpiry(nil, deposed.nextID(), mvcc.LeaseID(id+1), term))
	}
	stale := leaseCheckpoint([]*pb.LeaseCheckpoint{{ID: 1, Remaining_TTL: 1}}, term)
	if err := deposed.proposeOwn(t.Context(), stale); !errors.Is(err, mvcc.ErrStaleExpiry) {
		t.Errorf("a checkpoint of a former term: %v", err)
	}
	put(t, deposed, "a", "1")
	c.converge()
	c.wantLeases(n)
	if l, _ := next.View().Lease(1); l.Remaining != 0 {
		t.Errorf("%d s are left of a lease that was renewed behind the checkpoint", l.Remaining)
	}
	ahead.Add(int64(11 * time.Second))
	c.wantLeases(0)
}
