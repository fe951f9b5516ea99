//go:build robustness

package robustness

import (
	"context"
	"errors"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	c.reconfigure(old.name+" to be removed",
		func(all []*pb.Member) bool {
			return !slices.ContainsFunc(all, func(m *pb.Member) bool { return m.ID == old.id })
		},
		func(ctx context.Context, api pb.ClusterClient) error {
			_, err := api.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: old.id})
			return err
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

// reconfigure asks for a change until the list of members says that it is done. The members may be connected for less than 5 s, the learner may
// lag, and a call of which nobody knows the outcome, as any may be, is made again.
func (c *cluster) reconfigure(what string, done func([]*pb.Member) bool, do func(context.Context, pb.ClusterClient) error) {
	c.t.Helper()
	api := pb.NewClusterClient(c.members[0].conn)
	awaitSlowly(c.t, what, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if list, err := api.MemberList(ctx, &pb.MemberListRequest{Linearizable: true}); err != nil || done(list.Members) {
			return err == nil
		}
		err := do(ctx, api)
		if code := status.Code(err); err != nil && code != codes.Unavailable && !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberLearnerNotReady) {
			c.t.Fatalf("waited for %s: %v", what, err)
		}
		return false
	})
}

// join adds a member as a learner, starts and promotes it.
func (l *load) join(name string) *member {
	c, t := l.c, l.c.t
	t.Helper()
	m := c.newMember(name)
	c.reconfigure(name+" to be added",
		func(all []*pb.Member) bool {
			i := slices.IndexFunc(all, func(x *pb.Member) bool { return slices.Contains(x.PeerURLs, m.peerURL()) })
			if i >= 0 {
				m.id = all[i].ID
			}
			return i >= 0
		},
		func(ctx context.Context, api pb.ClusterClient) error {
			_, err := api.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.peerURL()}, IsLearner: true})
			return err
		})
	m.flags = []string{"--initial-cluster-state=existing", "--initial-cluster=" + c.initial(append(c.others(), m)...)}
	m.start()
	c.reconfigure(name+" to be promoted",
		func(all []*pb.Member) bool {
			return slices.ContainsFunc(all, func(x *pb.Member) bool { return x.ID == m.id && !x.IsLearner })
		},
		func(ctx context.Context, api pb.ClusterClient) error {
			_, err := api.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: m.id})
			return err
		})
	c.members = append(c.members, m)
	l.add(m, 0)
	return m
}
