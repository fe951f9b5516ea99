package raftstore

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// TestSnapshotPauses: the pauses grow up to a bound, and end when the member connects anew or acknowledges.
func TestSnapshotPauses(t *testing.T) {
	var p snapshotPauses
	now := time.Unix(1000, 0)
	active := now.Add(-time.Hour)
	told := func() (n int) {
		p.over(now, func(uint64) time.Time { return active }, func(uint64) { n++ })
		return n
	}
	pause := snapshotPauseMin
	for i := range 20 {
		p.failed(7, now)
		if now = now.Add(pause - 1); told() != 0 {
			t.Fatalf("failure %d: told before %v", i, pause)
		}
		if now = now.Add(1); told() != 1 || told() != 0 {
			t.Fatalf("failure %d: not told once after %v", i, pause)
		}
		pause = min(2*pause, snapshotPauseMax)
	}
	p.failed(7, now)
	active = now.Add(1)
	if told() != 1 {
		t.Error("not told when the member has connected anew")
	}
	if p.end(7) {
		t.Error("raft was told, and still waits")
	}
	p.failed(7, now.Add(time.Second))
	if now = now.Add(time.Second + snapshotPauseMin); told() != 1 {
		t.Error("the first failure after a success has a long pause")
	}
	p.failed(7, now)
	if !p.end(7) || p.end(7) {
		t.Error("raft waits for a failure that nobody would tell it of")
	}
}

// noRoom is Peers of a leader whose snapshots a member cannot take.
type noRoom struct {
	Peers
	handler  transport.Handler
	attempts chan struct{}
}

func (p *noRoom) SendSnapshot(m *raftpb.Message, _ func(context.Context) (io.ReadCloser, int64, error)) {
	p.attempts <- struct{}{}
	go p.handler.SnapshotSent(m.GetTo(), false)
}

// TestSnapshotsWithPauses: a member whose snapshot has failed gets no other one for as long as the leader's clock stands still, though there
// are heartbeats, and one at once when it is started again.
func TestSnapshotsWithPauses(t *testing.T) { synctest.Test(t, testSnapshotsWithPauses) }

func testSnapshotsWithPauses(t *testing.T) {
	var full [3]*noRoom
	var still atomic.Pointer[time.Time]
	c := newCluster(t, 3, fewEntries, func(i int, cfg *Config) {
		cfg.Now = func() time.Time {
			if now := still.Load(); now != nil {
				return *now
			}
			return time.Now()
		}
		connect := cfg.Connect
		cfg.Connect = func(member, cluster uint64, h transport.Handler) (Peers, error) {
			p, err := connect(member, cluster, h)
			full[i] = &noRoom{Peers: p, handler: h, attempts: make(chan struct{}, 1000)}
			return full[i], err
		}
	})
	i := fallBehind(t, c)
	leader := c.leader()
	node := c.stores[leader].node
	read := func(what func() uint64) uint64 {
		node.mu.Lock()
		defer node.mu.Unlock()
		return what()
	}
	paused := func() uint64 {
		if of := node.snapshots.peers[c.stores[i].id.member]; of != nil && of.waiting {
			return 1
		}
		return 0
	}
	ticks := func() uint64 { return node.ticks }

	c.start(i)
	<-full[leader].attempts
	still.Store(new(time.Now()))
	await(t, "a pause", func() bool { return read(paused) == 1 })
	for len(full[leader].attempts) > 0 {
		<-full[leader].attempts
	}
	from := read(ticks)
	await(t, "time for many snapshots", func() bool { return read(ticks) > from+50 })
	if n := len(full[leader].attempts); n > 0 {
		t.Errorf("%d snapshots within a pause", n)
	}
	c.stop(i)
	c.start(i)
	<-full[leader].attempts
	if c.members[i].saw("installed a snapshot") {
		t.Error("a snapshot was installed that could not be")
	}
}
