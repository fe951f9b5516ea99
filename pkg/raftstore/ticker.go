package raftstore

import "time"

// ticker is the goroutine that sees time pass: it moves raft's clock, and calls everything that is done every so often. It never waits
// for a disk nor for the node, so calls time out and leases are looked at while either hangs.
type ticker struct {
	s *Store

	// All below belongs to the goroutine.
	leaderless    int // ticks without a leader
	housekept     time.Time
	leasesChecked time.Time
	checkpointed  time.Time // remaining times of leases, to the log
	versioned     time.Time // the cluster version
	walSize       int64     // at the last tick
}

// run is the event loop.
func (k *ticker) run() {
	ticks, pace := k.s.cfg.Ticks, func() {}
	if ticks == nil {
		t := time.NewTimer(k.pause())
		defer t.Stop()
		ticks, pace = t.C, func() { t.Reset(k.pause()) }
	}
	for {
		select {
		case <-k.s.stop:
			return
		case <-ticks:
			k.tick()
			pace()
		}
	}
}

// pause is the time until the next tick. Where raft needs none so soon they are fewer, unless the log grows fast enough to look at it, or
// waits for room.
func (k *ticker) pause() time.Duration {
	size := k.s.log.wal.GivenBytes()
	grown := size - k.walSize
	k.walSize = size
	return k.s.node.clock.next(k.s, grown < quietBytesMax && !k.s.spaceLow.Load())
}

func (k *ticker) tick() {
	s := k.s
	if !s.leadsAlone() {
		s.node.ticked.Store(true)
		s.node.kick()
	}
	if s.lead.Load().leader != 0 {
		k.leaderless = 0
	} else if k.leaderless++; k.leaderless == noLeaderTimeouts*s.cfg.ElectionTicks {
		s.loseLeader()
	}
	now := s.cfg.Now()
	s.clock.Store(s.since(now))
	if now.Sub(k.leasesChecked) >= leaseCheckInterval {
		k.leasesChecked = now
		k.lookAtLeases(now)
	}
	s.comparison.look(now)
	s.quota.look()
	if now.Sub(k.housekept) >= housekeepingInterval {
		k.housekept = now
		if failed := s.waiters.sweep(s.since(now), s.overdue); failed > 0 {
			s.metrics.proposalsFailed(failed)
		}
		s.metrics.housekept(s.waiters.len(), s.committed.Load(), s.log.wal.Size())
		poke(s.checkpoint.poke)
	} else if s.log.wal.GivenBytes() >= s.checkpoint.burst.Load() {
		poke(s.checkpoint.poke)
	}
	if s.spaceLow.Load() {
		poke(s.log.wake)
	}
}
