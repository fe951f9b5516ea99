package raftstore

import (
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
)

// raftClock says by how many ticks raft's clock is behind. Any turn moves it: where a member hears of its leader, what comes from there
// carries the clock, and the ticker comes only when nothing has come for heartbeatsMissed ticks, as no election can be due before, or each leaseCheckInterval. So the
// ticks are those of a ticker of TickInterval that began with the process, whoever sees them: a follower of a quiet cluster wakes for each
// heartbeat, and not for a ticker beside it.
//
// Ticks that nobody had time for are lost but for one, as with a time.Ticker: raft must not take a process that did not run for a leader
// that is gone. On a member that hears of its leader up to heartbeatsMissed of them are ticks that nobody looked for.
type raftClock struct {
	began time.Time
	moved int64 // ticks from began that raft was told of, or that are lost; the turn's

	heard atomic.Int64 // nanoseconds from began to when the leader last said something
}

// heartbeatsMissed is how many ticks of an election timeout pass before the ticker looks for what has become of the leader.
func (c *Config) heartbeatsMissed() int64 { return int64(max(c.ElectionTicks/2, 1)) }

// follows: there is a leader, and it is another member.
func (s *Store) follows() bool {
	lead := s.lead.Load().leader
	return lead != raft.None && lead != s.id.member
}

// leadsAlone: raft has nobody to send heartbeats to, and no election to call.
func (s *Store) leadsAlone() bool {
	return s.soleVoter.Load() && s.lead.Load().leader == s.id.member
}

// due answers by how many ticks the clock is to be moved now, and takes that as done. Who has the turn calls it.
func (c *raftClock) due(s *Store) int64 {
	number := int64(time.Since(c.began) / s.cfg.TickInterval)
	passed := number - c.moved
	c.moved = number
	switch {
	case s.leadsAlone():
		return 0
	case s.follows():
		return min(passed, s.cfg.heartbeatsMissed())
	}
	return min(passed, 1)
}

// hear notes that the leader has said something.
func (c *raftClock) hear() { c.heard.Store(int64(time.Since(c.began))) }

// next is how long the ticker can sleep: until the next tick, or if it is told to be lazy, until one that something may depend on.
func (c *raftClock) next(s *Store, lazy bool) time.Duration {
	interval, now := s.cfg.TickInterval, time.Since(c.began)
	at := now + 1
	switch {
	case !lazy:
	case s.leadsAlone(): // to wake a machine that sleeps costs more than the tick
		at = now + max(interval, leaseCheckInterval)
	case s.follows():
		quiet := time.Duration(c.heard.Load()) + time.Duration(s.cfg.heartbeatsMissed())*interval
		at = max(at, min(quiet, now+max(interval, leaseCheckInterval))) // the ticker has more to do than this, and this member may come to lead
	}
	return (at+interval-1)/interval*interval - now
}
