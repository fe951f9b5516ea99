//go:build robustness

package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// fillingPuts are more than what is left of the log on a small disk that is full.
const fillingPuts = 3 * (64 << 20) / bigValueBytes

// compactEvery is between compactions, so that the state, unlike the log, has room.
const compactEvery = 50

func (b *bookkeeper) compact() {
	b.t.Helper()
	rev := b.revision()
	surely(b.t, "compact", func(ctx context.Context) error {
		_, err := b.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev})
		if errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) { // the time before, whose outcome was not known
			return nil
		}
		return err
	})
}

// surely puts, whoever leads.
func (b *bookkeeper) surely(key, value string) {
	b.t.Helper()
	surely(b.t, "put "+key, func(context.Context) error { return b.put(key, value, 0) })
}

// fullDiskCluster is a cluster of which the first member has a small disk.
func fullDiskCluster(t *testing.T) (c *cluster, small *member, ballast string) {
	t.Helper()
	c = prepareCluster(t, 3)
	small = c.members[0]
	disk := smallDisk(t)
	small.dir = filepath.Join(disk, "data")
	for _, m := range c.members {
		m.launch()
	}
	for _, m := range c.members {
		m.awaitReady()
		m.learnID()
	}
	await(t, "the spare segment", func() bool { _, err := os.Stat(filepath.Join(small.dir, "member/wal/spare")); return err == nil })
	return c, small, filepath.Join(disk, "ballast")
}

// moveTo makes a member the leader.
func (c *cluster) moveTo(m *member) {
	c.t.Helper()
	awaitSlowly(c.t, m.name+" to lead", func() bool {
		leader := c.leader()
		if leader == m {
			return true
		}
		ctx, cancel := patiently()
		defer cancel()
		_, err := pb.NewMaintenanceClient(leader.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: m.id})
		if err != nil {
			c.t.Logf("move the leader from %s to %s: %v", leader.name, m.name, err)
		}
		return false
	})
}

// TestClusterFullDiskOfFollower: the others go on, and it catches up once there is room.
func TestClusterFullDiskOfFollower(t *testing.T) {
	t.Parallel()
	c, small, ballast := fullDiskCluster(t)
	other := c.others(small)[0]
	c.moveTo(other)
	b := newBookkeeper(t, other.conn)
	b.surely("small", "x")
	fillDisk(t, ballast)
	for i := range fillingPuts {
		b.surely(fmt.Sprintf("big/%d", i%20), fmt.Sprintf("%0*d", bigValueBytes, i))
		if i%compactEvery == 0 {
			b.compact()
		}
	}
	if st := small.status(); st == nil || st.Header.Revision >= b.revision() {
		t.Errorf("the follower's disk is not full: %v", st)
	}
	b.verify("with a follower whose disk is full")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.surely("again", "x")
	b.verify("after there was room again")
	c.agree(b.revision())
}

// TestClusterFullDiskOfLeader: a leader without room refuses writes, and gives the leadership away when others forward them; none that was
// acknowledged is lost, and all members accept writes once there is room.
func TestClusterFullDiskOfLeader(t *testing.T) {
	t.Parallel()
	c, small, ballast := fullDiskCluster(t)
	c.moveTo(small)
	books := make(map[*member]*bookkeeper)
	for _, m := range c.members {
		books[m] = newBookkeeper(t, m.conn)
		books[m].surely("small", "x")
	}
	fillDisk(t, ballast)
	// Half of the writes are asked of the leader, until it has no room, and all others of a follower, which does not know.
	at, refused := small, error(nil)
	for i := range 2 * fillingPuts {
		key, value := fmt.Sprintf("big at %s/%d", at.name, i%10), fmt.Sprintf("%0*d", bigValueBytes, i)
		err := books[at].put(key, value, 0)
		switch {
		case err != nil && at == small && errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace):
			refused = err
		case err != nil: // on its way to the leader, whose disk is full, and which gives the leadership away
			oneOf(t, "write beside a leader whose disk is full", err, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail)
			books[at].surely(key, value)
		}
		if i%compactEvery == 0 {
			books[c.members[1]].compact()
		}
		if at == small || refused != nil {
			at = c.members[1]
		} else {
			at = small
		}
	}
	if refused == nil {
		t.Errorf("%s wrote all, without room", small.name)
	}
	if leader := c.leader(); leader == small {
		t.Errorf("%s leads without room", small.name)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	all := newBookkeeper(t, c.members[1].conn)
	for _, m := range c.members {
		await(t, "writes to work again at "+m.name, func() bool { return books[m].put("again", "x", 0) == nil })
		for k, v := range books[m].acked {
			all.acked[k] = v
		}
	}
	all.verify("after there was room again")
	c.agree(all.revision())
}
