package etcdapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/internal/freeport"
)

// startEtcd runs the real etcd, built if it is missing, and dials it.
func startEtcd(t *testing.T) *grpc.ClientConn {
	build := exec.Command("go", "run", "./test/internal/peers/build", "etcd")
	build.Dir, build.Stderr = "../..", os.Stderr
	bin, err := build.Output()
	if err != nil {
		t.Fatalf("build the real etcd: %v", err)
	}
	client, peer := freeport.Addr(t), freeport.Addr(t)
	log := mustOf[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "log")))
	cmd := exec.Command(strings.TrimSpace(string(bin)), "--data-dir", filepath.Join(t.TempDir(), "data"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	cc := mustOf[*grpc.ClientConn](t)(grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = cc.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if _, err := pb.NewKVClient(cc).Range(ctx, &pb.RangeRequest{Key: []byte("a")}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("etcd does not serve: %v", err)
	}
	return cc
}

// answer is a response with a header.
type answer interface {
	proto.Message
	GetHeader() *pb.ResponseHeader
}

// answerOf hides the concrete type of a call's response, nil on error.
func answerOf[T answer](m T, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// peerRequest is a random request around the current revision.
func peerRequest(w *world, rev int64) proto.Message {
	r := w.rand
	near := func() int64 { return max(0, rev-int64(r.IntN(60))+2) }
	switch r.IntN(14) {
	case 0, 1:
		q := w.putRequest()
		q.IgnoreValue, q.IgnoreLease = r.IntN(6) == 0, r.IntN(6) == 0
		if r.IntN(2) == 0 && q.IgnoreValue {
			q.Value = nil
		}
		q.Lease = int64(r.IntN(4))
		return q
	case 2:
		q := &pb.DeleteRangeRequest{Key: w.key(), PrevKv: r.IntN(2) == 0}
		if r.IntN(3) == 0 {
			q.RangeEnd = w.key()
		}
		return q
	case 3, 4, 5:
		q := w.txnRequest(2)
		for range r.IntN(3) {
			q.Compare = append(q.Compare, randomCompare(r, w))
		}
		readPast(q, near)
		return q
	case 6, 7, 8:
		q := fullRange(r, w)
		if r.IntN(2) == 0 {
			q = w.rangeRequest()
		}
		if r.IntN(2) == 0 {
			q.Revision = near()
		}
		if q.SortTarget != pb.RangeRequest_KEY {
			q.Limit = 0 // what the limit cuts depends on the order of equal keys
		}
		return q
	case 9:
		// Not 0: etcd then answers HashKV of 0, "now", with the hash it kept of that compaction.
		return &pb.CompactionRequest{Revision: max(1, near()-20), Physical: r.IntN(2) == 0}
	case 10:
		return &pb.LeaseGrantRequest{ID: 1 + int64(r.IntN(3)), TTL: []int64{500, 1500, 9_000_000_001}[r.IntN(3)]}
	case 11:
		return &pb.LeaseRevokeRequest{ID: 1 + int64(r.IntN(5))}
	case 12:
		return &pb.LeaseTimeToLiveRequest{ID: 1 + int64(r.IntN(3)), Keys: r.IntN(2) == 0}
	default:
		return &pb.HashKVRequest{}
	}
}

// readPast lets some ranges of a txn read old revisions.
func readPast(q *pb.TxnRequest, near func() int64) {
	for i, op := range append(slices.Clip(q.Success), q.Failure...) {
		if g := op.GetRequestRange(); g != nil {
			g.SortTarget = pb.RangeRequest_KEY
			if i%4 == 0 {
				g.Revision = near()
			}
		}
		if x := op.GetRequestTxn(); x != nil {
			readPast(x, near)
		}
	}
}

// peerCall makes the call that a request is for.
func peerCall(cc *grpc.ClientConn, m proto.Message, stream bool) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	kv, lease := pb.NewKVClient(cc), pb.NewLeaseClient(cc)
	switch q := m.(type) {
	case *pb.PutRequest:
		return answerOf(kv.Put(ctx, q))
	case *pb.DeleteRangeRequest:
		return answerOf(kv.DeleteRange(ctx, q))
	case *pb.TxnRequest:
		return answerOf(kv.Txn(ctx, q))
	case *pb.RangeRequest:
		if stream {
			return mergedStream(kv.RangeStream(ctx, q))
		}
		return answerOf(kv.Range(ctx, q))
	case *pb.CompactionRequest:
		return answerOf(kv.Compact(ctx, q))
	case *pb.LeaseGrantRequest:
		return answerOf(lease.LeaseGrant(ctx, q))
	case *pb.LeaseRevokeRequest:
		return answerOf(lease.LeaseRevoke(ctx, q))
	case *pb.LeaseTimeToLiveRequest:
		resp, err := lease.LeaseTimeToLive(ctx, q)
		if err == nil {
			slices.SortFunc(resp.Keys, bytes.Compare) // etcd's come in no order
			resp.TTL = (resp.TTL + 100) / 200         // the two clocks differ by a little
		}
		return answerOf(resp, err)
	case *pb.HashKVRequest:
		return answerOf(pb.NewMaintenanceClient(cc).HashKV(ctx, q))
	}
	panic("no call for the request")
}

func mergedStream(stream pb.KV_RangeStreamClient, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	merged := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return merged, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(merged, chunk.RangeResponse)
	}
}

// TestBesideEtcd makes the same random calls at the real etcd 3.7.3 and here:
// answers and refusals are equal, but for the names of member and cluster.
func TestBesideEtcd(t *testing.T) {
	etcd, shim := startEtcd(t), startServer(t, Options{}).conn(t)
	w := newWorld(t, rand.Uint64())
	rev, refused := int64(1), map[string]int{}
	for n := range 2500 {
		m := peerRequest(w, rev)
		r, isRange := m.(*pb.RangeRequest)
		stream := isRange && r.SortTarget == pb.RangeRequest_KEY && w.rand.IntN(3) == 0
		want, wantErr := peerCall(etcd, m, stream)
		got, gotErr := peerCall(shim, m, stream)
		if status.Convert(wantErr).String() != status.Convert(gotErr).String() {
			t.Fatalf("call %d, %T %v:\netcd %v\nshim %v", n, m, m, wantErr, gotErr)
		}
		if wantErr != nil {
			refused[status.Convert(wantErr).Message()]++
			continue
		}
		for _, h := range []*pb.ResponseHeader{want.GetHeader(), got.GetHeader()} {
			h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
		}
		rev = want.GetHeader().Revision
		if !proto.Equal(want, got) {
			t.Fatalf("call %d, %T %v:\netcd %v\nshim %v", n, m, m, want, got)
		}
	}
	if len(refused) < 8 {
		t.Errorf("only these refusals were tried: %v", refused)
	}
}

type adminCall func(context.Context, *grpc.ClientConn) (answer, error)

func downgrade(a pb.DowngradeRequest_DowngradeAction, v string) adminCall {
	return func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewMaintenanceClient(cc).Downgrade(ctx, &pb.DowngradeRequest{Action: a, Version: v}))
	}
}

// adminCalls are what an operator asks a cluster of one member.
var adminCalls = map[string]adminCall{
	"validate 3.6":     downgrade(pb.DowngradeRequest_VALIDATE, "3.6"),
	"validate 3.6.9":   downgrade(pb.DowngradeRequest_VALIDATE, "3.6.9"),
	"validate 3.5":     downgrade(pb.DowngradeRequest_VALIDATE, "3.5"),
	"validate 3.7":     downgrade(pb.DowngradeRequest_VALIDATE, "3.7"),
	"validate nothing": downgrade(pb.DowngradeRequest_VALIDATE, ""),
	"enable 3.8":       downgrade(pb.DowngradeRequest_ENABLE, "3.8"),
	"cancel":           downgrade(pb.DowngradeRequest_CANCEL, ""),
	"unknown action":   downgrade(7, "3.6"),
	"no alarms": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewMaintenanceClient(cc).Alarm(ctx, &pb.AlarmRequest{}))
	},
	"disarm nothing": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewMaintenanceClient(cc).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}))
	},
	"move leader to nobody": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewMaintenanceClient(cc).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1}))
	},
	"defragment": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewMaintenanceClient(cc).Defragment(ctx, &pb.DefragmentRequest{}))
	},
	"auth status": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewAuthClient(cc).AuthStatus(ctx, &pb.AuthStatusRequest{}))
	},
	"authenticate": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewAuthClient(cc).Authenticate(ctx, &pb.AuthenticateRequest{Name: "a", Password: "b"}))
	},
	"auth disable": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewAuthClient(cc).AuthDisable(ctx, &pb.AuthDisableRequest{}))
	},
	"no leases": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		return answerOf(pb.NewLeaseClient(cc).LeaseLeases(ctx, &pb.LeaseLeasesRequest{}))
	},
	"members": func(ctx context.Context, cc *grpc.ClientConn) (answer, error) {
		resp, err := pb.NewClusterClient(cc).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err == nil {
			for _, m := range resp.Members { // what differs between two clusters
				m.ID, m.PeerURLs, m.ClientURLs = 0, nil, nil
			}
		}
		return answerOf(resp, err)
	},
}

// TestAdminBesideEtcd compares the answers to the calls of an operator.
func TestAdminBesideEtcd(t *testing.T) {
	etcd, shim := startEtcd(t), startServer(t, Options{}).conn(t)
	for what, call := range adminCalls {
		ctx := within(t)
		want, wantErr := call(ctx, etcd)
		got, gotErr := call(ctx, shim)
		if status.Convert(wantErr).String() != status.Convert(gotErr).String() {
			t.Errorf("%s:\netcd %v\nshim %v", what, wantErr, gotErr)
			continue
		}
		if wantErr != nil {
			continue
		}
		for _, h := range []*pb.ResponseHeader{want.GetHeader(), got.GetHeader()} {
			if h != nil {
				h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
			}
		}
		if !proto.Equal(want, got) {
			t.Errorf("%s:\netcd %v\nshim %v", what, want, got)
		}
	}
}
