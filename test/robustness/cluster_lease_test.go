//go:build robustness

package robustness

import (
	"context"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	leftTTL = 8 // seconds
	keptTTL = 8 // the machine may stand still for some of it
)

// TestClusterLeases: leases over changes of the leader. One that nobody renews lasts for its time at least, and then its key goes; one that
// is kept alive through all members stays, though a leader that was frozen for longer than its time believes that it is over.
func TestClusterLeases(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := newLoad(t, c)
	l.more(100)
	kept := l.leased("kept", keptTTL)
	keeping, stop := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	defer keeper.Wait()
	defer stop()
	keeper.Go(func() { l.keep(keeping, kept) })

	granted := time.Now()
	l.leased("left", leftTTL)
	for range 2 {
		old := c.leader()
		old.kill()
		l.firstWrite(c.others(old))
		old.start()
		l.more(100)
	}
	awaitSlowly(t, "the lease to expire", func() bool { return !l.has("left") })
	if lasted := time.Since(granted); lasted < leftTTL*time.Second {
		t.Errorf("a lease of %d s has expired after %v", leftTTL, lasted)
	} else {
		t.Logf("a lease of %d s lasted for %v over two leaders", leftTTL, lasted)
	}

	old := c.leader()
	old.freeze()
	time.Sleep((keptTTL + 2) * time.Second) // the time that the leader misses, in which others renew the lease
	old.thaw()
	l.more(300)
	c.leader()
	if !l.has("kept") {
		t.Error("the lease that was kept alive has expired")
	}
	stop()
	keeper.Wait()
	awaitSlowly(t, "the lease that is no longer kept alive to expire", func() bool { return !l.has("kept") })
	l.finish()
}

// leased puts a key with a lease of its own.
func (l *load) leased(key string, ttl int64) int64 {
	l.c.t.Helper()
	var grant *pb.LeaseGrantResponse
	surely(l.c.t, "grant a lease", func(ctx context.Context) (err error) {
		grant, err = pb.NewLeaseClient(l.roaming).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl}, grpc.WaitForReady(true))
		return err
	})
	if grant.TTL != ttl {
		l.c.t.Fatalf("grant: %v", grant)
	}
	if o := l.client(l.roaming, callTimeout).Call(&pb.PutRequest{Key: []byte("t/" + key), Value: []byte(key), Lease: grant.ID}); o.Response == nil {
		l.c.t.Fatalf("put %s with a lease fails", key)
	}
	return grant.ID
}

func (l *load) has(key string) bool {
	l.c.t.Helper()
	var found int
	surely(l.c.t, "read "+key, func(ctx context.Context) error {
		r, err := pb.NewKVClient(l.roaming).Range(ctx, &pb.RangeRequest{Key: []byte("t/" + key)}, grpc.WaitForReady(true))
		found = len(r.GetKvs())
		return err
	})
	return found == 1
}

// keep renews a lease through all members in turn, several times within the time that it has.
func (l *load) keep(ctx context.Context, id int64) {
	every := time.NewTicker(keptTTL * time.Second / 8)
	defer every.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for ctx.Err() == nil {
		for _, m := range l.c.members {
			calls.Go(func() { l.renew(ctx, m, id) })
			select {
			case <-every.C:
			case <-ctx.Done():
			}
		}
	}
}

func (l *load) renew(ctx context.Context, m *member, id int64) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := pb.NewLeaseClient(m.conn).LeaseKeepAlive(ctx)
	if err != nil {
		return
	}
	if stream.Send(&pb.LeaseKeepAliveRequest{ID: id}) != nil {
		return
	}
	if r, err := stream.Recv(); err == nil && r.TTL == 0 {
		l.c.t.Errorf("%s says that the lease which is kept alive has expired", m.name)
	}
}
