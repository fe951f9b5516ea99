package etcdapi

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
)

func TestLease(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	lc := pb.NewLeaseClient(ts.conn(t))

	short := mustOf[*pb.LeaseGrantResponse](t)(lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 1}))
	if short.ID <= 0 || short.TTL != 2 {
		t.Errorf("shortest lease: %v", short)
	}
	ts.wantHeader(t, "grant", short.Header, 1)
	granted := mustOf[*pb.LeaseGrantResponse](t)(lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 300}))
	if granted.ID != 77 || granted.TTL != 300 {
		t.Errorf("grant: %v", granted)
	}
	for i := range 3 {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, fmt.Sprint("k", 2-i), "v", clientv3.WithLease(77)))
	}
	ttl := mustOf[*pb.LeaseTimeToLiveResponse](t)(lc.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 77, Keys: true}))
	if ttl.GrantedTTL != 300 || ttl.TTL > 300 || ttl.TTL < 200 || fmt.Sprintf("%s", ttl.Keys) != "[k0 k1 k2]" {
		t.Errorf("time to live: %v", ttl)
	}
	ts.wantHeader(t, "time to live", ttl.Header, 4)
	unknown := mustOf[*pb.LeaseTimeToLiveResponse](t)(lc.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 78}))
	if unknown.TTL != -1 || unknown.ID != 78 || unknown.GrantedTTL != 0 {
		t.Errorf("time to live of an unknown lease: %v", unknown)
	}

	leases := mustOf[*pb.LeaseLeasesResponse](t)(lc.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}))
	if len(leases.Leases) != 2 || leases.Leases[0].ID != short.ID || leases.Leases[1].ID != 77 {
		t.Errorf("leases by expiry: %v", leases)
	}

	revoked := mustOf[*pb.LeaseRevokeResponse](t)(lc.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 77}))
	ts.wantHeader(t, "revoke", revoked.Header, 5)
	left := mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, "k", clientv3.WithPrefix()))
	if left.Count != 0 {
		t.Errorf("%d keys left after revoke", left.Count)
	}
}

func TestLeaseRefusals(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	lc := pb.NewLeaseClient(ts.conn(t))
	mustOf[*pb.LeaseGrantResponse](t)(lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 300}))
	_, exists := lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 300})
	_, large := lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9_000_000_001})
	_, unknown := lc.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 8})
	for _, c := range []struct{ got, want error }{
		{exists, rpctypes.ErrGRPCLeaseExist},
		{large, rpctypes.ErrGRPCLeaseTTLTooLarge},
		{unknown, rpctypes.ErrGRPCLeaseNotFound},
	} {
		if status.Convert(c.got).String() != status.Convert(c.want).String() {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestLeaseKeepAlive(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	lc := pb.NewLeaseClient(ts.conn(t))
	mustOf[*pb.LeaseGrantResponse](t)(lc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 300}))
	stream := mustOf[pb.Lease_LeaseKeepAliveClient](t)(lc.LeaseKeepAlive(ctx))
	for _, c := range []struct{ id, ttl int64 }{{7, 300}, {8, 0}, {7, 300}} {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: c.id}); err != nil {
			t.Fatal(err)
		}
		got := mustOf[*pb.LeaseKeepAliveResponse](t)(stream.Recv())
		if got.ID != c.id || got.TTL != c.ttl {
			t.Errorf("keep alive of %d: %v", c.id, got)
		}
		ts.wantHeader(t, "keep alive", got.Header, 1)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || err.Error() != "EOF" {
		t.Errorf("end of stream: %v", err)
	}
}
