package raftstore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// TestClockSetForward: calls under way do not time out because the clock of the machine was set.
func TestClockSetForward(t *testing.T) {
	h := newHarness(t)
	h.now = time.Now()
	g := gated(h)
	s := h.open()
	defer closeStore(t, s)
	h.pass(0)
	open := g.close()
	answered := make(chan error, 1)
	go func() { _, err := tryPut(s, "a", "1", 0); answered <- err }()
	await(t, "call", func() bool { return s.waiters.len() == 1 })
	h.mu.Lock()
	h.now = wallSet(h.now, time.Hour)
	h.mu.Unlock()
	h.pass(housekeepingInterval)
	h.pass(0) // the tick before it is over then
	open()
	if err := <-answered; err != nil {
		t.Errorf("call during which the clock was set: %v", err)
	}
}

// wallSet is the time by a clock that was set forward, which moves what it shows and not how it runs.
func wallSet(at time.Time, by time.Duration) time.Time {
	const nanosecondBits = 30 // of the first word of a time.Time with a monotonic reading; the seconds are above
	*(*uint64)(unsafe.Pointer(&at)) += uint64(by/time.Second) << nanosecondBits
	return at
}

// TestLateProposals: what a call has given up does not take effect minutes later, when the member that it was made at finds a leader again.
// Somebody may have gone on with another member meanwhile.
func TestLateProposals(t *testing.T) { synctest.Test(t, testLateProposals) }

func testLateProposals(t *testing.T) {
	c := newCluster(t, 3)
	cut := c.stores[c.follower()]
	put(t, cut, "k", "0")
	c.net.isolate(cut.id.member)
	await(t, "no leader", func() bool { return !cut.HasLeader() })
	if _, err := tryPut(cut, "k", "late", 0); err == nil {
		t.Fatal("a member that is cut off has written")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := cut.Propose(ctx, putCommand("k", "canceled")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	var other *Store
	for _, s := range c.stores {
		if s != cut {
			other = s
		}
	}
	put(t, other, "k", "1")
	c.net.heal()
	await(t, "a leader", cut.HasLeader)
	put(t, cut, "after", "1")
	c.converge()
	if got := get(t, other, "k"); got != "1" {
		t.Errorf("k = %q, which was written before", got)
	}
}
