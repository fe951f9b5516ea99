package mvcc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/internal/freeport"
)

// realEtcd is a running etcd of the peers' directory.
type realEtcd struct {
	t   *testing.T
	kv  pb.KVClient
	le  pb.LeaseClient
	mt  pb.MaintenanceClient
	wa  pb.WatchClient
	rev int64 // of the last header
}

// etcdPath is the real etcd's binary, built if it is missing. The package that
// knows how is one of the tests', which nothing may import; it has a command.
func etcdPath(t *testing.T) string {
	build := exec.Command("go", "run", "./test/internal/peers/build", "etcd")
	build.Dir = "../../.."
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		t.Fatalf("build the real etcd: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func startEtcd(t *testing.T) *realEtcd {
	bin := etcdPath(t)
	client, peer := freeport.Addr(t), freeport.Addr(t)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--data-dir", filepath.Join(t.TempDir(), "data"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	e := &realEtcd{t: t, kv: pb.NewKVClient(conn), le: pb.NewLeaseClient(conn), mt: pb.NewMaintenanceClient(conn), wa: pb.NewWatchClient(conn), rev: 1}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if _, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("etcd does not serve: %v", err)
	}
	return e
}

// TestRealEtcd gives the same random commands to a State and to etcd 3.7.3.
func TestRealEtcd(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			e := startEtcd(t)
			m := newModel()
			g := gen{rand.New(rand.NewPCG(seed, 11)), m}
			s := New(Options{})
			for range 500 {
				req := g.request()
				if req.Alarm != nil || req.LeaseCheckpoint != nil || req.LeaseGrant != nil && req.LeaseGrant.TTL < 60 {
					continue
				}
				if skipsEtcd(req) {
					continue
				}
				want := e.apply(req)
				m.apply(Entry{Request: req})
				var got string
				if req.Range != nil || req.Txn != nil && IsReadOnlyTxn(req.Txn) {
					got = readText(s.Publish(), req)
				} else {
					res := s.Apply(Entry{Index: s.Index() + 1, Request: req})
					res.Events = nil
					got = render(res)
				}
				if want != got {
					t.Fatalf("%v:\netcd %s\ngot  %s", req, want, got)
				}
				for !s.CompactStep(0) {
				}
				e.checkHash(s.Publish(), Revision(g.rev()))
				e.checkRefused(g.damaged())
			}
			e.checkWatch(s.Publish())
		})
	}
}

// skipsEtcd tells of what etcd itself is known to get wrong: it accepts a txn
// that deletes "from a key on" and puts behind it, and may lose or panic on it
// later.
func skipsEtcd(r *pb.InternalRaftRequest) bool {
	return r.Txn != nil && txnPuts(r.Txn) && deletesFrom(r.Txn)
}

func deletesFrom(t *pb.TxnRequest) bool {
	return slices.ContainsFunc(append(slices.Clone(t.Success), t.Failure...), func(op *pb.RequestOp) bool {
		nested := op.GetRequestTxn()
		return string(op.GetRequestDeleteRange().GetRangeEnd()) == "\x00" || nested != nil && deletesFrom(nested)
	})
}

// damaged draws a txn whose shape may be wrong in any way.
func (g gen) damaged() *pb.TxnRequest {
	t := g.txn(3)
	for _, op := range append(slices.Clone(t.Success), t.Failure...) {
		if !g.chance(20) {
			continue
		}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			o.RequestPut.IgnoreValue, o.RequestPut.IgnoreLease = g.chance(50), g.chance(50)
			if g.chance(30) {
				o.RequestPut.Key = nil
			}
		case *pb.RequestOp_RequestDeleteRange:
			o.RequestDeleteRange.Key = nil
		case *pb.RequestOp_RequestRange:
			o.RequestRange.SortOrder = pb.RangeRequest_SortOrder(g.IntN(5))
			o.RequestRange.SortTarget = pb.RangeRequest_SortTarget(g.IntN(7))
		}
	}
	if g.chance(10) {
		t.Compare = append(t.Compare, &pb.Compare{})
	}
	if g.chance(5) {
		t.Failure = append(t.Failure, &pb.RequestOp{})
	}
	if g.chance(5) {
		t.Compare = slices.Repeat([]*pb.Compare{{Key: []byte("a")}}, 120+g.IntN(12))
	}
	return t
}

// checkRefused compares what the shape check says with what etcd says.
func (e *realEtcd) checkRefused(t *pb.TxnRequest) {
	err := CheckTxn(t, 128)
	if err == nil {
		return
	}
	want := e.apply(&pb.InternalRaftRequest{Txn: t})
	if got := fmt.Sprintf("rev=%d err=%v  []", e.rev, err); want != got {
		e.t.Fatalf("%v:\netcd %s\ngot  %s", t, want, got)
	}
}

func readText(v *View, req *pb.InternalRaftRequest) string {
	var body any
	var err error
	if req.Range != nil {
		var r *RangeResult
		if r, err = v.Range(req.Range); err == nil {
			body = r
		}
	} else {
		var r *TxnResult
		if r, err = v.Txn(req.Txn); err == nil {
			body = r
		}
	}
	return render(Result{Revision: v.Revision(), Err: err, Response: body})
}

// apply sends a request and writes the answer as render does, without events.
func (e *realEtcd) apply(r *pb.InternalRaftRequest) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var head *pb.ResponseHeader
	var body string
	var err error
	switch {
	case r.Range != nil:
		var a *pb.RangeResponse
		if a, err = e.kv.Range(ctx, r.Range); err == nil {
			head, body = a.Header, rangeText(a)
		}
	case r.Put != nil:
		var a *pb.PutResponse
		if a, err = e.kv.Put(ctx, r.Put); err == nil {
			head, body = a.Header, putText(a)
		}
	case r.DeleteRange != nil:
		var a *pb.DeleteRangeResponse
		if a, err = e.kv.DeleteRange(ctx, r.DeleteRange); err == nil {
			head, body = a.Header, deleteText(a)
		}
	case r.Txn != nil:
		var a *pb.TxnResponse
		if a, err = e.kv.Txn(ctx, r.Txn); err == nil {
			head, body = a.Header, txnText(a)
		}
	case r.Compaction != nil:
		var a *pb.CompactionResponse
		c := proto.Clone(r.Compaction).(*pb.CompactionRequest)
		c.Physical = true
		if a, err = e.kv.Compact(ctx, c); err == nil {
			head, body = a.Header, fmt.Sprintf("compact %d", c.Revision)
		}
	case r.LeaseGrant != nil:
		var a *pb.LeaseGrantResponse
		if a, err = e.le.LeaseGrant(ctx, r.LeaseGrant); err == nil {
			head, body = a.Header, fmt.Sprintf("grant %d %d", a.ID, a.TTL)
		}
	case r.LeaseRevoke != nil:
		var a *pb.LeaseRevokeResponse
		if a, err = e.le.LeaseRevoke(ctx, r.LeaseRevoke); err == nil {
			head, body = a.Header, fmt.Sprintf("revoke %d", r.LeaseRevoke.ID)
		}
	}
	if err != nil {
		return fmt.Sprintf("rev=%d err=%v  []", e.rev, sentinel(err))
	}
	e.rev = head.Revision
	return fmt.Sprintf("rev=%d err=<nil> %s []", e.rev, body)
}

// sentinel answers ours of an error of etcd's, by its text.
func sentinel(err error) error {
	for _, ours := range []error{
		ErrCompacted, ErrFutureRev, ErrKeyNotFound, ErrLeaseNotFound, ErrLeaseExists,
		ErrDuplicateKey, ErrValueProvided, ErrLeaseProvided, ErrEmptyKey, ErrInvalidSortOption, ErrTooManyOps,
	} {
		if strings.HasSuffix(status.Convert(err).Message(), ours.Error()) {
			return ours
		}
	}
	return err
}

func kvText(kv *mvccpb.KeyValue) string {
	b, _ := proto.Marshal(kv)
	return renderKV(b)
}

func kvsText(kvs []*mvccpb.KeyValue) []string {
	var out []string
	for _, kv := range kvs {
		out = append(out, kvText(kv))
	}
	return out
}

func rangeText(a *pb.RangeResponse) string {
	return fmt.Sprintf("range rev=%d count=%d more=%v %v", a.Header.Revision, a.Count, a.More, kvsText(a.Kvs))
}

func putText(a *pb.PutResponse) string {
	if a.PrevKv != nil {
		return "put prev=" + kvText(a.PrevKv)
	}
	return "put"
}

func deleteText(a *pb.DeleteRangeResponse) string {
	return fmt.Sprintf("delete %d %v", a.Deleted, kvsText(a.PrevKvs))
}

func txnText(a *pb.TxnResponse) string {
	var out []string
	for _, o := range a.Responses {
		var s string
		var rev int64
		if r := o.GetResponseRange(); r != nil {
			s, rev = rangeText(r), r.Header.Revision
		} else if p := o.GetResponsePut(); p != nil {
			s, rev = putText(p), p.Header.Revision
		} else if d := o.GetResponseDeleteRange(); d != nil {
			s, rev = deleteText(d), d.Header.Revision
		} else if t := o.GetResponseTxn(); t != nil {
			s, rev = txnText(t), t.Header.GetRevision()
		}
		out = append(out, fmt.Sprintf("%s@%d", s, rev))
	}
	return fmt.Sprintf("txn %v (%s)", a.Succeeded, strings.Join(out, "; "))
}

func (e *realEtcd) checkHash(v *View, rev Revision) {
	if rev < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	a, werr := e.mt.HashKV(ctx, &pb.HashKVRequest{Revision: int64(rev)})
	if werr == nil && a.CompactRevision != int64(v.Compacted()) {
		return // one of the hashes that etcd has kept from past compactions
	}
	h, compacted, hashed, err := v.HashKV(ctx, rev)
	if werr != nil {
		if sentinel(werr) != err {
			e.t.Fatalf("hash at %d: etcd %v, got %v", rev, werr, err)
		}
		return
	}
	if err != nil || a.Hash != h || a.CompactRevision != int64(compacted) || a.HashRevision != int64(hashed) {
		e.t.Fatalf("hash at %d: etcd %v, got %x %d %d %v", rev, a, h, compacted, hashed, err)
	}
}

// checkWatch compares the history from the compacted revision on with what a
// watch gives.
func (e *realEtcd) checkWatch(v *View) {
	from := max(int64(v.Compacted()), 1)
	want := []string{}
	if err := v.History(Revision(from), v.Revision()+1, func(ev Event) bool {
		s := renderVersion(ev.Version)
		if ev.Prev != nil {
			s += "<-" + renderVersion(ev.Prev)
		}
		want = append(want, s)
		return true
	}); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w, err := e.wa.Watch(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: from, PrevKv: true}}}); err != nil {
		e.t.Fatal(err)
	}
	got := []string{}
	for len(got) < len(want) {
		r, err := w.Recv()
		if err != nil || r.Canceled {
			e.t.Fatalf("watch from %d after %d of %d events: %v %v", from, len(got), len(want), r, err)
		}
		for _, ev := range r.Events {
			s := kvText(ev.Kv)
			if ev.PrevKv != nil {
				s += "<-" + kvText(ev.PrevKv)
			}
			got = append(got, s)
		}
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		e.t.Fatalf("watch from %d:\netcd %v\ngot  %v", from, got, want)
	}
}
