//go:build robustness

package robustness

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/netns"
)

// frozenReaders ask a frozen leader, beside the client that it has anyway.
const frozenReaders = 8

// TestClusterFreezeLeader: a leader that was stopped for longer than an election, and does not know it, answers no read from the past and
// acknowledges nothing that is lost. The calls are in its sockets when it goes on.
func TestClusterFreezeLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	for round := range 3 {
		l.more(200)
		old := c.leader()
		old.freeze()
		others := c.others(old)
		t.Logf("round %d: the first write after SIGSTOP of the leader took %v", round, l.firstWrite(others))
		next := c.leader(others...)
		if o := l.client(next.conn, callTimeout).Call(&pb.PutRequest{Key: []byte("k/1"), Value: fmt.Appendf(nil, "frozen %d", round)}); o.Response == nil {
			t.Errorf("round %d: %s leads and refuses a write", round, next.name)
		}
		before := c.net.Counters(c.clients, old.host).Delivered
		for i := range frozenReaders {
			client := l.client(old.conn, callTimeout)
			l.clientsDone.Go(func() {
				client.Call(&pb.RangeRequest{Key: []byte("k/1")})
				client.Call(&pb.PutRequest{Key: []byte("k/1"), Value: fmt.Appendf(nil, "thawed %d %d", round, i)})
			})
		}
		ctx, cancel := patiently()
		err := c.net.Await(ctx, c.clients, old.host, func(n netns.Counters) bool { return n.Delivered > before })
		cancel()
		if err != nil {
			t.Fatalf("nothing is sent to the frozen leader: %v", err)
		}
		old.thaw()
		l.more(200)
		c.leader()
	}
	l.finish()
}
