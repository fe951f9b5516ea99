package raftstore

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// leaseClock knows when leases end. It decides nothing by itself: the ticker asks what has expired and proposes the
// revocation, which takes effect when it is applied. Only the leader's clock runs; on the other members every lease is endless.
//
// The deadlines have three users (apply tells of grants, calls renew, the ticker asks for what is due), each of which
// needs the answer at once, so the table has a mutex of its own instead of a goroutine. No call under it does more than a heap
// operation, promote and the periodic checkpoint aside.
type leaseClock struct {
	ttlMin int64 // seconds; shorter leases have as much

	mu      sync.Mutex
	leases  map[mvcc.LeaseID]*leaseTimer
	due     leaseHeap     // by leaseTimer.at; empty unless leading
	demoted chan struct{} // closed on loss of leadership; nil unless leading
	settled bool          // what is left went to the log for the next leader: nothing is renewed here any more
}

type leaseTimer struct {
	id        mvcc.LeaseID
	ttl       int64         // seconds, as granted
	remaining int64         // seconds left at the last checkpoint in the log; 0 none
	named     bool          // a checkpoint is on its way to the log, or was lost
	deadline  time.Time     // zero: endless
	renewed   time.Time     // when the deadline was last set
	at        time.Time     // when the heap looks again: the deadline, or the next attempt to revoke
	revoked   chan struct{} // closed when the revocation is applied
	pos       int           // in the heap, -1 when not there
}

func newLeaseClock(ttlMin int64) *leaseClock {
	return &leaseClock{ttlMin: ttlMin, leases: make(map[mvcc.LeaseID]*leaseTimer)}
}

// timeLeft is what a new deadline is computed from.
func (t *leaseTimer) timeLeft() time.Duration {
	if t.remaining > 0 {
		return time.Duration(t.remaining) * time.Second
	}
	return time.Duration(t.ttl) * time.Second
}

func (c *leaseClock) leading() bool { return c.demoted != nil }

func (c *leaseClock) setDeadline(t *leaseTimer, now time.Time, after time.Duration) {
	t.renewed, t.deadline = now, now.Add(after)
	c.lookAgain(t, t.deadline)
}

func (c *leaseClock) lookAgain(t *leaseTimer, at time.Time) {
	t.at = at
	if t.pos < 0 {
		heap.Push(&c.due, t)
	} else {
		heap.Fix(&c.due, t.pos)
	}
}

// granted adds a lease. A lease that is known already (replay) keeps its clock.
func (c *leaseClock) granted(id mvcc.LeaseID, ttl, remaining int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leases[id] != nil {
		return
	}
	t := &leaseTimer{id: id, ttl: max(ttl, c.ttlMin), remaining: remaining, revoked: make(chan struct{}), pos: -1}
	c.leases[id] = t
	if c.leading() {
		c.setDeadline(t, now, t.timeLeft())
	}
}

// replace makes the leases those of a snapshot. It answers as revokedLease does, of all that are gone; one with another time than before is
// gone, and was granted again under its ID.
func (c *leaseClock) replace(leases []mvcc.Lease, now time.Time) (ended []chan struct{}) {
	ttls := make(map[mvcc.LeaseID]int64, len(leases))
	for _, l := range leases {
		ttls[l.ID] = l.TTL
	}
	var gone []mvcc.LeaseID
	c.mu.Lock()
	for id, t := range c.leases {
		if ttl, ok := ttls[id]; !ok || max(ttl, c.ttlMin) != t.ttl {
			gone = append(gone, id)
		}
	}
	c.mu.Unlock()
	for _, id := range gone {
		ended = append(ended, c.revokedLease(id))
	}
	for _, l := range leases {
		c.granted(l.ID, l.TTL, l.Remaining, now)
		c.checkpointed(l.ID, l.Remaining, now)
	}
	return ended
}

// revokedLease removes a lease, if it is there. It answers what is to be closed once the end of the lease is published: that wakes the
// renewals that wait for it.
func (c *leaseClock) revokedLease(id mvcc.LeaseID) (ended chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.leases[id]
	if t == nil {
		return nil
	}
	if t.pos >= 0 {
		heap.Remove(&c.due, t.pos)
	}
	delete(c.leases, id)
	return t.revoked
}

// checkpointed notes the remaining time that the log now holds. The running deadline stays, unless the log forgets what it was made of: then the
// lease was renewed, maybe at the leader before, whose answers this one did not know to be committed when it was elected.
func (c *leaseClock) checkpointed(id mvcc.LeaseID, remaining int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.leases[id]
	if t == nil {
		return
	}
	renewed := t.remaining > 0 && remaining == 0
	t.remaining, t.named = remaining, t.named && remaining > 0
	if renewed && c.leading() && t.deadline.After(now) {
		c.setDeadline(t, now, t.timeLeft())
	}
}

// promote starts the clock. Each lease gets its time and extend on top, since its owner could not reach a leader for a while; where
// more than three quarters of the revocation rate would end in the same second, the later ones are moved out.
func (c *leaseClock) promote(now time.Time, extend time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leading() {
		return
	}
	c.demoted = make(chan struct{})
	all := make([]*leaseTimer, 0, len(c.leases))
	for _, t := range c.leases {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *leaseTimer) int {
		return cmp.Or(cmp.Compare(a.timeLeft(), b.timeLeft()), cmp.Compare(a.id, b.id))
	})
	const perSecond = leaseRevokeRate * 3 / 4
	var slot time.Duration // the start of the second that is being filled
	filled := 0
	for _, t := range all {
		left := t.timeLeft() + extend
		switch {
		case left >= slot+time.Second:
			slot, filled = left, 0
		case filled >= perSecond:
			slot, filled = slot+time.Second, 0
		}
		filled++
		c.setDeadline(t, now, max(left, slot))
	}
}

// demote stops the clock: leases are endless here until this member leads again.
func (c *leaseClock) demote() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leading() {
		return
	}
	close(c.demoted)
	c.demoted, c.settled = nil, false
	for _, t := range c.due {
		t.pos, t.deadline, t.named = -1, time.Time{}, false // a checkpoint counts in its term only
	}
	c.due = nil
}

// expired are up to limit leases whose time is over. Each is named again after the retry interval, in case its revocation was lost.
func (c *leaseClock) expired(now time.Time, limit int) []mvcc.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []mvcc.LeaseID
	for len(c.due) > 0 && len(ids) < limit && !c.due[0].at.After(now) {
		t := c.due[0]
		ids = append(ids, t.id)
		c.lookAgain(t, now.Add(leaseRevokeRetryInterval))
	}
	return ids
}

// leaseRenewal is what a renewal has met. It is done if the lease is found and this member leads, and nothing else holds.
type leaseRenewal struct {
	found   bool
	leading bool // if not, another member has to do it
	ttl     int64
	// expired: the lease is over and its revocation is on its way. Wait for one of the channels, then look again.
	expired          bool
	revoked, demoted <-chan struct{}
	// checkpointed: the log holds a remaining time, or will, which must be cleared first.
	checkpointed bool
}

// renew sets the deadline anew, unless the lease is over or has a remaining time in the log, and says what it has met. If the log is to be told
// to forget a remaining time, no checkpoint names the lease again meanwhile.
func (c *leaseClock) renew(id mvcc.LeaseID, now time.Time) leaseRenewal {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.leases[id]
	if t == nil || !c.leading() || c.settled {
		return leaseRenewal{found: t != nil, leading: c.leading() && !c.settled}
	}
	l := leaseRenewal{found: true, leading: true, ttl: t.ttl, expired: !t.deadline.After(now), revoked: t.revoked, demoted: c.demoted,
		checkpointed: t.remaining > 0 || t.named}
	switch {
	case l.expired:
	case l.checkpointed:
		t.renewed = now
	default:
		c.setDeadline(t, now, t.timeLeft())
	}
	return l
}

// timeLeft is how long the lease still has. Below zero once it is over. False: unknown, or the clock does not run here.
func (c *leaseClock) timeLeft(id mvcc.LeaseID, now time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.leases[id]
	if t == nil || !c.leading() {
		return 0, false
	}
	return t.deadline.Sub(now), true
}

// checkpoints are the remaining times to write to the log, in batches, of leases that were not renewed for as long as idle says (a lease
// under keep-alive starts over anyway, and clearing its checkpoint would cost each renewal a proposal). propose must not wait: the mutex is
// held, so that whoever learns of a checkpoint, and has it cleared before a renewal, comes behind it in the log.
func (c *leaseClock) checkpoints(now time.Time, idle time.Duration, propose func([]*pb.LeaseCheckpoint)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, batch := range c.checkpointsLocked(now, idle) {
		propose(batch)
	}
}

// settle is checkpoints of all leases for the next leader, or the next start. Until resume, or until another member leads, nothing is
// renewed here: the renewal would not be in what the log says.
func (c *leaseClock) settle(now time.Time) [][]*pb.LeaseCheckpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = c.leading()
	return c.checkpointsLocked(now, 0)
}

// resume: this member goes on to lead.
func (c *leaseClock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = false
}

func (c *leaseClock) checkpointsLocked(now time.Time, idle time.Duration) [][]*pb.LeaseCheckpoint {
	var all []*pb.LeaseCheckpoint
	for id, t := range c.leases {
		left := t.deadline.Sub(now)
		if !c.leading() || left <= 0 || now.Sub(t.renewed) < idle {
			continue
		}
		seconds := int64((left + time.Second - 1) / time.Second)
		if seconds != t.remaining && seconds < t.ttl {
			t.named = true
			all = append(all, &pb.LeaseCheckpoint{ID: int64(id), Remaining_TTL: seconds})
		}
	}
	slices.SortFunc(all, func(a, b *pb.LeaseCheckpoint) int { return cmp.Compare(a.ID, b.ID) })
	return slices.Collect(slices.Chunk(all, leaseCheckpointBatchMax))
}

// leaseHeap orders timers by at.
type leaseHeap []*leaseTimer

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *leaseHeap) Push(x any) {
	t := x.(*leaseTimer)
	t.pos = len(*h)
	*h = append(*h, t)
}

func (h *leaseHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h, t.pos = old[:len(old)-1], -1
	return t
}
