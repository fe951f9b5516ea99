//go:build robustness

package robustness

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// snapshotsReceived is a member's count of installed snapshots.
const snapshotsReceived = "etcd_network_snapshot_receive_success"

// TestClusterReplaceMember: under load a follower is removed, ends by itself and does not come back; another takes its place as a learner
// and is promoted. Then the same with the leader.
func TestClusterReplaceMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=200", "--snapshot-catchup-entries=100")
	l := newLoad(t, c)
	for _, next := range []string{"d", "e"} {
		l.more(200)
		old := c.leader()
		if next == "d" {
			old = c.others(old)[0]
		}
		l.remove(old)
		l.more(200)
		l.join(next)
		l.more(200)
		t.Logf("%s has taken the place of %s", next, old.name)
	}
	l.finish()
}

// TestClusterRemovedWhileAway: a member that was down, or cut off, when it was removed learns of it from the others.
func TestClusterRemovedWhileAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	l.more(100)
	old := c.others(c.leader())[0]
	old.kill()
	l.expel(old)
	l.more(100)
	old.staysOut()
	m := l.join("d")
	l.more(100)
	c.cutOff(m)
	l.expel(m)
	c.heal()
	if code := m.wait(); code != 0 {
		t.Errorf("%s was removed and ended with code %d", m.name, code)
	}
	m.staysOut()
	l.join("e")
	l.finish()
}

// remove takes a member out of the cluster, which ends and stays out.
func (l *load) remove(old *member) {
	l.c.t.Helper()
	l.expel(old)
	if code := old.wait(); code != 0 {
		l.c.t.Errorf("%s was removed and ended with code %d", old.name, code)
	}
	old.staysOut()
}

// expel takes a member out of the cluster.
func (l *load) expel(old *member) {
	c, t := l.c, l.c.t
	t.Helper()
	c.members = c.others(old)
	l.targets.UpdateState(l.addresses())
	ctx, cancel := patiently()
	defer cancel()
	awaitSlowly(t, old.name+" to be removed", func() bool {
		_, err := pb.NewClusterClient(c.members[0].conn).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: old.id})
		if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrUnhealthy) { // that is: connected for less than 5 s
			t.Fatalf("remove %s: %v", old.name, err)
		}
		return err == nil
	})
	l.pinned[old]()
}

// staysOut starts a member that was removed. It ends by itself before it serves anybody.
func (m *member) staysOut() {
	m.t.Helper()
	m.launch()
	m.wait()
	select {
	case <-m.ready:
		m.t.Errorf("%s was removed, and is ready to serve", m.name)
	default:
	}
}

// join adds a member as a learner, starts and promotes it.
func (l *load) join(name string) *member {
	c, t := l.c, l.c.t
	t.Helper()
	m := c.newMember(name)
	ctx, cancel := patiently()
	defer cancel()
	api := pb.NewClusterClient(c.members[0].conn)
	awaitSlowly(t, name+" to be added", func() bool {
		r, err := api.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.peerURL()}, IsLearner: true})
		if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrUnhealthy) {
			t.Fatalf("add %s: %v", name, err)
		}
		m.id = r.GetMember().GetID()
		return err == nil
	})
	m.flags = []string{"--initial-cluster-state=existing", "--initial-cluster=" + c.initial(append(c.others(), m)...)}
	m.start()
	awaitSlowly(t, name+" to be promoted", func() bool {
		_, err := api.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: m.id})
		if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberLearnerNotReady) {
			t.Fatalf("promote %s: %v", name, err)
		}
		return err == nil
	})
	c.members = append(c.members, m)
	l.add(m, 0)
	return m
}
