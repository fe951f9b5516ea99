//go:build robustness

package robustness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kubeshim/shim/test/internal/netns"
)

// TestClusterLeaderCutOff: a leader that reaches nobody acknowledges nothing and answers no linearizable read, the others go on, and it
// catches up when it is back.
func TestClusterLeaderCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	for round := range 2 {
		l.more(200)
		old := c.leader()
		majority := c.others(old)
		c.cutOff(old)
		t.Logf("round %d: the first write after %s was cut off took %v", round, old.name, l.firstWrite(majority))
		marker := fmt.Appendf(nil, "marker %d", round)
		if o := l.client(c.leader(majority...).conn, callTimeout).Call(&pb.PutRequest{Key: []byte("z/marker"), Value: marker}); o.Response == nil {
			t.Errorf("round %d: the majority refuses a write", round)
		}
		minority(t, old, marker)
		l.more(200)
		c.heal()
		c.leader()
		awaitSlowly(t, "the one that was cut off to answer", func() bool {
			r, err := get(old, "z/marker", false)
			return err == nil && len(r.Kvs) == 1 && string(r.Kvs[0].Value) == string(marker)
		})
	}
	l.finish()
}

// TestClusterMinorityOfFive: the leader of five is cut off with a follower; then two are killed at once.
func TestClusterMinorityOfFive(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	l := newLoad(t, c)
	l.more(200)
	old := c.leader()
	few := []*member{old, c.others(old)[0]}
	c.cutOff(few...)
	marker := []byte("marker")
	t.Logf("the first write took %v", l.firstWrite(c.others(few...)))
	if o := l.client(c.leader(c.others(few...)...).conn, callTimeout).Call(&pb.PutRequest{Key: []byte("z/marker"), Value: marker}); o.Response == nil {
		t.Error("the majority refuses a write")
	}
	minority(t, few[1], marker)
	c.heal()
	l.more(200)
	old = c.leader()
	few = []*member{old, c.others(old)[1]}
	for _, m := range few {
		m.kill()
	}
	t.Logf("the first write after kill -9 of the leader and another took %v", l.firstWrite(c.others(few...)))
	for _, m := range few {
		m.start()
	}
	l.finish()
}

// minority checks that a member without a majority refuses all but reads of the past, with etcd's errors. marker is what z/marker has
// become elsewhere.
func minority(t *testing.T, m *member, marker []byte) {
	t.Helper()
	put, read := make(chan error, 1), make(chan error, 1)
	go func() {
		ctx, cancel := patiently()
		defer cancel()
		_, err := pb.NewKVClient(m.conn).Put(ctx, &pb.PutRequest{Key: []byte("z/minority")})
		put <- err
	}()
	go func() {
		_, err := get(m, "z/marker", false)
		read <- err
	}()
	r, err := get(m, "z/marker", true)
	if err != nil {
		t.Errorf("%s without a majority refuses a serializable read: %v", m.name, err)
	} else if len(r.Kvs) > 0 && string(r.Kvs[0].Value) == string(marker) {
		t.Errorf("%s is not cut off", m.name)
	}
	timeouts := []error{rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost}
	oneOf(t, m.name+" without a majority was asked to write", <-put, timeouts...)
	oneOf(t, m.name+" without a majority was asked to read", <-read, append(timeouts, rpctypes.ErrLeaderChanged)...)
}

func oneOf(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if errors.Is(rpctypes.Error(err), w) {
			return
		}
	}
	t.Errorf("%s: %v, want one of %v", what, err, want)
}

func get(m *member, key string, serializable bool) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return pb.NewKVClient(m.conn).Range(ctx, &pb.RangeRequest{Key: []byte(key), Serializable: serializable})
}

// TestClusterOneWay: links that lose everything in one direction, or between two members only.
func TestClusterOneWay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	for _, f := range []struct {
		name string
		make func(leader, follower *member)
	}{
		{"the leader is not heard", func(leader, _ *member) { c.mute(leader) }},
		{"the leader hears nobody", func(leader, _ *member) { c.deafen(leader) }},
		{"a follower is not heard", func(_, follower *member) { c.mute(follower) }},
		{"a follower hears nobody", func(_, follower *member) { c.deafen(follower) }},
		{"a follower does not hear the leader", func(leader, follower *member) { c.net.Set(leader.host, follower.host, netns.Cut) }},
		{"the leader and a follower do not reach each other", func(leader, follower *member) { c.net.SetBoth(leader.host, follower.host, netns.Cut) }},
	} {
		leader := c.leader()
		follower := c.others(leader)[l.rng.IntN(2)]
		f.make(leader, follower)
		began := time.Now()
		l.more(600)
		c.heal()
		t.Logf("%s (leader %s, follower %s): 600 answers in %v", f.name, leader.name, follower.name, time.Since(began))
		l.more(100)
	}
	l.finish()
}

// TestClusterBadLinks: links that are late, overtake themselves and lose.
func TestClusterBadLinks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	for _, f := range []netns.Fault{
		{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond},
		{Delay: 10 * time.Millisecond, Reorder: 0.3},
		{Loss: 0.02},
		{Loss: 0.1, Delay: 2 * time.Millisecond, Jitter: 5 * time.Millisecond, Reorder: 0.1},
	} {
		c.links(f)
		began := time.Now()
		l.more(300)
		t.Logf("%v: 300 answers in %v", f, time.Since(began))
	}
	c.heal()
	l.finish()
}
