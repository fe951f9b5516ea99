package raftstore

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3"
)

// TestRaftClock: ticks are those of a ticker that began with the clock, those that nobody had time for are lost but for one, and on a follower
// those that nobody looked for count.
func TestRaftClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick = 100 * time.Millisecond
		s := &Store{cfg: Config{TickInterval: tick, ElectionTicks: 10}}
		s.id.member = 1
		s.lead.Store(&leadership{})
		c := &raftClock{began: time.Now()}
		step := func(name string, pass time.Duration, due int64, next, lazy time.Duration) {
			t.Helper()
			time.Sleep(pass)
			if got := c.due(s); got != due {
				t.Errorf("%s: %d ticks are due, want %d", name, got, due)
			}
			if got := c.next(s, false); got != next {
				t.Errorf("%s: next tick in %v, want %v", name, got, next)
			}
			if got := c.next(s, true); got != lazy {
				t.Errorf("%s: next look in %v, want %v", name, got, lazy)
			}
		}
		step("no leader", 30*time.Millisecond, 0, 70*time.Millisecond, 70*time.Millisecond)
		step("no leader", 75*time.Millisecond, 1, 95*time.Millisecond, 95*time.Millisecond)
		step("no leader, not run for long", 10*time.Second, 1, 95*time.Millisecond, 95*time.Millisecond)
		s.lead.Store(&leadership{leader: 2})
		c.hear()
		step("follower", 0, 0, 95*time.Millisecond, 595*time.Millisecond)
		step("follower, a heartbeat later", 100*time.Millisecond, 1, 95*time.Millisecond, 495*time.Millisecond)
		c.hear()
		step("follower that hears nothing", 595*time.Millisecond, 5, tick, tick)
		step("follower that hears nothing", tick, 1, tick, tick)
		step("follower, not run for long", 10*time.Second, 5, tick, tick)
		s.lead.Store(&leadership{leader: 1})
		step("leader", tick, 1, tick, tick)
		step("leader, not run for long", 10*time.Second, 1, tick, tick)
		s.soleVoter.Store(true)
		step("alone", 3*tick, 0, tick, leaseCheckInterval)
		s.soleVoter.Store(false)
		s.lead.Store(&leadership{leader: 2})
		s.cfg.ElectionTicks = 500 // what else the ticker does is not put off by half of that
		c.hear()
		step("follower that is patient", 0, 0, tick, leaseCheckInterval)
	})
}

// TestElectionTicks: a follower that hears of its leader looks at the clock by that, and not by the ticker; its ticks are as many. It calls an
// election within raft's bounds behind the last heartbeat, and a leader that nobody answers steps down within them.
func TestElectionTicks(t *testing.T) {
	runTimeless(t, "elections", func(t *testing.T) {
		c := newCluster(t, 3)
		led := c.leader()
		leader, tick := c.stores[led], c.stores[led].cfg.TickInterval
		timeout := time.Duration(leader.cfg.ElectionTicks) * tick
		ticks := func(s *Store) uint64 {
			s.node.mu.Lock()
			defer s.node.mu.Unlock()
			return s.node.ticks
		}
		was := make([]uint64, 3)
		for i, s := range c.stores {
			was[i] = ticks(s)
		}
		term := leader.lead.Load().term
		time.Sleep(1000 * tick)
		for i, s := range c.stores {
			if got := ticks(s) - was[i]; got < 990 || got > 1001 {
				t.Errorf("member %d saw %d ticks of 1000", i, got)
			}
			if now := *s.lead.Load(); now.term != term {
				t.Errorf("member %d had an election", i)
			}
			if s == leader {
				continue
			}
			if next := s.node.clock.next(s, true); next <= 3*tick {
				t.Errorf("member %d looks again in %v", i, next)
			}
		}
		c.net.isolate(leader.id.member)
		cut := time.Now()
		gone := func(s *Store) time.Duration {
			for s.lead.Load().leader == leader.id.member {
				time.Sleep(tick / 10)
			}
			return time.Since(cut)
		}
		left := make(chan time.Duration, 3)
		for _, s := range c.stores {
			go func() { left <- gone(s) }()
		}
		for range 3 {
			if took := <-left; took < timeout-2*tick || took > 2*timeout+2*tick {
				t.Errorf("a member gave the leader up after %v, the election timeout is %v", took, timeout)
			}
		}
		c.leader(led)
	})
}

// TestLentTurnEnds: a turn on a goroutine with other things to do ends though there is always more, and the node goroutine goes on.
func TestLentTurnEnds(t *testing.T) {
	runTimeless(t, "lent", func(t *testing.T) {
		n := newCluster(t, 3).stores[0].node
		calls, done := 0, make(chan struct{})
		var more func(*raft.RawNode)
		more = func(*raft.RawNode) {
			if calls++; calls == 10*lentRoundsMax {
				close(done)
				return
			}
			n.inbox.leave(nodeInput{do: more})
		}
		n.mu.Lock()
		n.inbox.leave(nodeInput{do: more})
		n.turn(false)
		if calls > lentRoundsMax {
			t.Errorf("the turn went on for %d rounds", calls)
		}
		n.mu.Unlock()
		<-done
	})
}
