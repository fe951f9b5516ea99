package raftstore

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

func TestBoundsOf(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		limit int64
		want  bounds
	}{
		{0, bounds{inFlight: 256 * mib, batch: 8 * mib, committed: 64 * mib, perMember: 64 * mib, inbound: 64 * mib, catchup: 64 * mib}},
		{math.MaxInt64, bounds{inFlight: 256 * mib, batch: 8 * mib, committed: 64 * mib, perMember: 64 * mib, inbound: 64 * mib, catchup: 64 * mib}},
		{1 << 30, bounds{inFlight: 128 * mib, batch: 8 * mib, committed: 32 * mib, perMember: 32 * mib, inbound: 32 * mib, catchup: 64 * mib}},
		{64 * mib, bounds{inFlight: 8 * mib, batch: 2 * mib, committed: 2 * mib, perMember: 2 * mib, inbound: 2 * mib, catchup: 8 * mib}},
		{1, bounds{inFlight: mib, batch: mib, committed: mib, perMember: mib, inbound: mib, catchup: mib}},
	} {
		if got := boundsOf(c.limit); got != c.want {
			t.Errorf("of %d: %+v, want %+v", c.limit, got, c.want)
		}
	}
}

// TestLargeWritesUnderALimit: three members with little memory take writes of a megabyte from many clients, by each member, while one of
// them is cut off; every one has its answer, the leader's entries in memory keep to their shares of the limit, and the third catches up. (A
// follower that applies later than it writes has more of them: the leader waits for neither.)
func TestLargeWritesUnderALimit(t *testing.T) { synctest.Test(t, testLargeWritesUnderALimit) }

func testLargeWritesUnderALimit(t *testing.T) {
	const clients, writes, valueBytes = 24, 2, 1 << 20
	var measured atomic.Pointer[Store]
	var most atomic.Int64
	c := newCluster(t, 3, func(_ int, cfg *Config) {
		cfg.Memory, cfg.WALSegmentBytes = compact.Memory{Limit: compact.MemoryLimitMin}, 8<<20
		name := cfg.Name
		cfg.OnApply = func(*mvcc.View, []mvcc.Event) {
			if s := measured.Load(); s != nil && s.cfg.Name == name {
				l := s.log.log
				l.mu.Lock()
				defer l.mu.Unlock()
				most.Store(max(most.Load(), int64(l.bytes)))
			}
		}
	})
	leader, cut := c.leader(), c.follower()
	measured.Store(c.stores[leader])
	c.net.isolate(c.stores[cut].id.member)
	value := strings.Repeat("v", valueBytes)
	var calls sync.WaitGroup
	for client := range clients {
		s := c.stores[leader]
		if client%2 == 0 {
			s = c.stores[3-leader-cut]
		}
		calls.Go(func() {
			for i := range writes {
				put(t, s, fmt.Sprintf("k%d", client), fmt.Sprint(value, i))
			}
		})
	}
	calls.Wait()
	b := boundsOf(compact.MemoryLimitMin)
	if got, limit := most.Load(), int64(b.catchup+b.inFlight+b.batch+2*(valueBytes+1000)); got > limit {
		t.Errorf("%d bytes of entries in memory, want %d at most", got, limit)
	}
	c.net.heal()
	put(t, c.stores[c.leader()], "after", "1")
	c.converge()
	for client := range clients {
		if v := c.stores[cut].View().Get(fmt.Appendf(nil, "k%d", client)); v == nil || v.Num() != writes {
			t.Errorf("k%d is %v on the member that was cut off", client, v)
		}
	}
}

// TestLostProposals: what a follower has proposed and the network lost counts as in flight no longer than until the connection has ended,
// though there are always calls that wait. Else all that come later would wait behind it for nothing.
func TestLostProposals(t *testing.T) { synctest.Test(t, testLostProposals) }

func testLostProposals(t *testing.T) {
	const valueBytes = 1 << 20
	c := newCluster(t, 3, func(_ int, cfg *Config) { cfg.Memory.Limit, cfg.WALSegmentBytes = compact.MemoryLimitMin, 8<<20 })
	leader, s := c.stores[c.leader()], c.stores[c.follower()]
	put(t, s, "before", "1")
	var lost atomic.Int64
	c.net.setDrop(func(m *raftpb.Message) bool {
		if m.GetType() != raftpb.MsgProp || m.GetFrom() != s.id.member {
			return false
		}
		for _, e := range m.GetEntries() {
			lost.Add(int64(entrySize(e)))
		}
		return true
	})
	inFlight := int64(s.bounds.inFlight)
	var calls sync.WaitGroup
	value := strings.Repeat("v", valueBytes)
	for i := range inFlight / valueBytes {
		calls.Go(func() {
			if _, err := tryPut(s, fmt.Sprint("k", i), value, 0); err == nil {
				t.Errorf("k%d was written though its proposal was lost", i)
			}
		})
	}
	await(t, "as many lost proposals as may be in flight", func() bool { return lost.Load() >= inFlight })
	c.net.heal()
	peerHandler{s}.Unreachable(leader.id.member)
	put(t, s, "after", "1")
	calls.Wait()
}
