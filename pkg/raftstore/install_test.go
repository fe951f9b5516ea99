package raftstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// fallBehind stops a follower and lets the others write so much that it will need a snapshot.
func fallBehind(t *testing.T, c *cluster) (i int) {
	t.Helper()
	i = c.follower()
	for j := range 20 {
		put(t, c.stores[i], "old", fmt.Sprint(j))
	}
	c.stop(i)
	grow(t, c)
	return i
}

func grow(t *testing.T, c *cluster) {
	t.Helper()
	s := c.stores[c.leader()]
	for j := range 100 {
		put(t, s, fmt.Sprintf("k%d", j%10), strings.Repeat("v", 1000))
	}
}

func fewEntries(_ int, cfg *Config) {
	cfg.SnapshotCatchupEntries = 10
	cfg.WALSegmentBytes = 64 << 10
}

// TestSnapshotCatchesUp: a member whose entries are gone is brought up by a snapshot, goes on from it, and starts from it.
func TestSnapshotCatchesUp(t *testing.T) { synctest.Test(t, testSnapshotCatchesUp) }

func testSnapshotCatchesUp(t *testing.T) {
	var mu sync.Mutex
	type applied struct {
		from, to mvcc.Revision
		events   int
	}
	var seen []applied
	watched := -1
	c := newCluster(t, 3, fewEntries, func(i int, cfg *Config) {
		last := mvcc.Revision(1)
		cfg.OnApply = func(v *mvcc.View, events []mvcc.Event) {
			mu.Lock()
			defer mu.Unlock()
			if i == watched {
				seen = append(seen, applied{last, v.Revision(), len(events)})
			}
			last = v.Revision()
		}
	})
	i := fallBehind(t, c)
	mu.Lock()
	watched = i
	mu.Unlock()
	c.start(i)
	c.converge()
	await(t, "a snapshot", func() bool { return c.members[i].saw("installed a snapshot") })
	mu.Lock()
	gap := false
	for _, a := range seen {
		gap = gap || a.events == 0 && a.to > a.from
	}
	mu.Unlock()
	if !gap {
		t.Errorf("watchers were not told of a gap: %+v", seen)
	}
	put(t, c.stores[i], "a", "1")
	if err := c.stores[i].Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	put(t, c.stores[i], "a", "2")
	c.kill(i)
	c.start(i)
	c.leader()
	if got := get(t, c.stores[i], "a"); got != "2" {
		t.Errorf("a = %s after a start from the snapshot", got)
	}
	c.converge()
}

// saw says whether an event's text begins so.
func (h *harness) saw(prefix string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if strings.HasPrefix(e, prefix) {
			return true
		}
	}
	return false
}

// TestSnapshotUnderLoad: writes go on while members are stopped, fall behind and are brought up by turns.
func TestSnapshotUnderLoad(t *testing.T) { synctest.Test(t, testSnapshotUnderLoad) }

func testSnapshotUnderLoad(t *testing.T) {
	c := newCluster(t, 3, fewEntries)
	c.leader()
	for range 3 {
		i := fallBehind(t, c)
		stop := make(chan struct{})
		var writer sync.WaitGroup
		leader := c.stores[c.leader(i)]
		writer.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := tryPut(leader, "load", fmt.Sprint(j), 0); err != nil {
					t.Logf("put: %v", err)
				}
				time.Sleep(time.Millisecond) // else time stands still
			}
		})
		c.start(i)
		await(t, "a snapshot", func() bool { return c.members[i].saw("installed a snapshot") })
		close(stop)
		writer.Wait()
		c.converge()
	}
}

// TestSnapshotBroken: a snapshot that ends early, or that is of something else, changes nothing.
func TestSnapshotBroken(t *testing.T) { synctest.Test(t, testSnapshotBroken) }

func testSnapshotBroken(t *testing.T) {
	c := newCluster(t, 3, fewEntries)
	leader, i := c.leader(), c.follower()
	put(t, c.stores[leader], "a", "1")
	c.converge()
	at, size, rc, err := c.stores[leader].stream(t.Context(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(c.stores[leader].id.member), To: new(c.stores[i].id.member),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(at.index + 100), Term: new(at.term), ConfState: at.conf}}}
	if err := c.stores[i].receiveSnapshot(t.Context(), m, size, rc); err == nil || !strings.Contains(err.Error(), "it holds the state") {
		t.Errorf("a snapshot of another index: %v", err)
	}
	if err := c.stores[i].receiveSnapshot(t.Context(), m, size, strings.NewReader("short")); err == nil {
		t.Error("a snapshot that is cut off was taken")
	}
	m.Snapshot.Metadata.Index = new(at.index)
	if err := c.stores[i].receiveSnapshot(context.Background(), m, size, strings.NewReader("")); !errors.Is(err, errSnapshotDeclined) {
		t.Errorf("a snapshot of what is there: %v", err)
	}
	if files, _ := filepath.Glob(c.members[i].db + ".install*"); len(files) > 0 {
		t.Errorf("files are left: %q", files)
	}
	put(t, c.stores[i], "a", "2")
	c.converge()
}

// TestInstallAnswersWaiters: a call whose entry may be in the snapshot is answered when it is installed, as one of unknown outcome; so is a
// read that waits, by the state of the snapshot, and a compaction that the snapshot is beyond.
func TestInstallAnswersWaiters(t *testing.T) { synctest.Test(t, testInstallAnswersWaiters) }

func testInstallAnswersWaiters(t *testing.T) {
	c := newCluster(t, 3, fewEntries)
	i := c.follower()
	s := c.stores[i]
	<-s.Published()
	put(t, s, "a", "0")
	c.converge()
	id := s.id.member
	c.net.setDrop(func(m *raftpb.Message) bool { // it follows, and gets nothing
		typ := m.GetType()
		return m.GetTo() == id && (typ == raftpb.MsgApp || typ == raftpb.MsgSnap) || m.GetFrom() == id && typ == raftpb.MsgProp
	})
	proposed, read := make(chan error, 1), make(chan error, 1)
	go func() { _, err := tryPut(s, "a", "1", 0); proposed <- err }()
	await(t, "the proposal", func() bool { return s.waiters.len() == 1 && s.node.proposals.len() == 0 })
	leader := c.leader()
	for j := range 100 {
		put(t, c.stores[leader], "b", fmt.Sprint(j))
	}
	rev := c.stores[leader].View().Revision()
	if _, err := c.stores[leader].Propose(t.Context(), compactCommand(int64(rev))); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := s.ReadView(context.Background()); read <- err }()
	await(t, "the read index", func() bool { return s.reads.unapplied.Load() == 1 })
	compacted := make(chan error, 1)
	go func() { compacted <- s.CompactWait(context.Background(), rev) }()
	c.net.heal()
	await(t, "a snapshot", func() bool { return c.members[i].saw("installed a snapshot") })
	if err := <-proposed; !errors.Is(err, ErrTimeout) {
		t.Errorf("the proposal: %v", err)
	}
	if err := <-read; err != nil {
		t.Errorf("the read: %v", err)
	}
	if err := <-compacted; err != nil {
		t.Errorf("the compaction: %v", err)
	}
	c.converge()
}

// TestChangeBehindSnapshot: a change of the members that was being applied when a snapshot came is none to the configuration that raft has of the
// snapshot.
func TestChangeBehindSnapshot(t *testing.T) { synctest.Test(t, testChangeBehindSnapshot) }

func testChangeBehindSnapshot(t *testing.T) {
	c := newCluster(t, 3, fewEntries, func(_ int, cfg *Config) { cfg.LaxReconfiguration = true })
	leader := c.stores[c.leader()]
	i := c.follower()
	s := c.stores[i]
	c.converge()

	applying := make(chan struct{}) // nothing is applied meanwhile
	s.apply.inbox.put(applyTask{do: func() { <-applying }})
	learner, _, err := leader.AddMember(t.Context(), []string{"http://10.0.1.1:2380"}, true)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the change", func() bool { return s.committed.Load() >= leader.applied.Load() })
	c.net.isolate(s.id.member)
	if _, err := leader.RemoveMember(t.Context(), uint64(learner.ID)); err != nil {
		t.Fatal(err)
	}
	for j := range 100 {
		put(t, leader, fmt.Sprint(j), strings.Repeat("v", 1000))
	}
	first, _ := s.log.log.FirstIndex()
	c.net.heal()
	await(t, "a snapshot", func() bool { now, _ := s.log.log.FirstIndex(); return now > first })
	close(applying)

	c.converge()
	for i, s := range c.stores {
		var status raft.Status
		if err := s.onNode(t.Context(), func(rn *raft.RawNode) { status = rn.Status() }); err != nil {
			t.Fatal(err)
		}
		if len(status.Config.Learners) > 0 || len(status.Config.Voters.IDs()) != 3 {
			t.Errorf("raft of member %d has the configuration %v", i, status.Config)
		}
	}
}
