//go:build robustness

package robustness

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// lagFlags have members forget their logs soon, so that a member that was away needs a snapshot.
var lagFlags = []string{"--snapshot-count=100", "--snapshot-catchup-entries=50"}

// TestClusterSnapshot: a follower that is cut off, and then one that is down, for so long that it needs a snapshot. Watches that are open
// on it, or come back to it, get every event.
func TestClusterSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, lagFlags...)
	l := newLoad(t, c)
	for _, f := range []struct {
		name       string
		away, back func(*member)
	}{
		{"cut off", func(m *member) { c.cutOff(m) }, func(*member) { c.heal() }},
		{"killed", (*member).kill, (*member).start},
		{"frozen", (*member).freeze, (*member).thaw},
	} {
		l.more(200)
		m := c.others(c.leader())[0]
		before := m.metric(snapshotsReceived)
		if f.name == "killed" {
			before = 0
		}
		f.away(m)
		l.more(1500)
		f.back(m)
		awaitSlowly(t, "a snapshot for the one that was "+f.name, func() bool { return m.metric(snapshotsReceived) > before })
	}
	l.finish()
}

// TestClusterSnapshotCompacted: what happened while a follower was cut off is compacted when it gets its snapshot. A watch that is open on
// it ends with the compacted revision, or has everything.
func TestClusterSnapshotCompacted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, lagFlags...)
	leader := c.leader()
	m := c.others(leader)[0]
	b := newBookkeeper(t, leader.conn)
	b.surely("first", "x")
	ctx, cancel := patiently()
	defer cancel()
	stream, err := pb.NewWatchClient(m.conn).Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := int64(1)
	next := func() *pb.WatchResponse {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("the watch broke after revision %d: %v", seen, err)
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision != seen+1 {
				t.Fatalf("revision %d follows %d", e.Kv.ModRevision, seen)
			}
			seen = e.Kv.ModRevision
		}
		return r
	}
	for seen < b.revision() {
		next()
	}
	c.cutOff(m)
	for i := range 500 {
		b.surely(fmt.Sprintf("key %d", i%7), fmt.Sprint(i))
	}
	compacted := b.revision()
	b.compact()
	for i := range 200 {
		b.surely(fmt.Sprintf("key %d", i%7), fmt.Sprint(i))
	}
	last := b.revision()
	c.heal()
	for seen < last {
		if r := next(); r.Canceled {
			if r.CompactRevision != compacted {
				t.Errorf("the watch ended with %v, and revision %d is compacted", r, compacted)
			}
			break
		}
	}
	t.Logf("the watch got revisions up to %d of %d, compacted is %d", seen, last, compacted)
	awaitSlowly(t, "a snapshot", func() bool { return m.metric(snapshotsReceived) > 0 })
	c.agree(last)
}
