package etcdapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"
)

// asked is a list that asks for its turn.
type asked struct {
	lent *grant
	err  error
}

// askFor has a list ask for so many bytes, and returns when it has them or waits.
func askFor(t *testing.T, b *listBudget, ctx context.Context, bytes int64) chan asked {
	before := b.Stats()
	done := make(chan asked, 1)
	go func() {
		g, err := b.acquire(ctx, bytes)
		t.Cleanup(func() { runtime.KeepAlive(g) }) // until then nobody may take it for forgotten
		done <- asked{g, err}
	}()
	for len(done) == 0 && b.Stats().Waiting == before.Waiting {
		runtime.Gosched()
	}
	return done
}

func wantBudget(t *testing.T, b *listBudget, lent int64, waiting int) {
	t.Helper()
	if s := b.Stats(); s.Lent != lent || s.Waiting != waiting {
		t.Fatalf("%d bytes are lent and %d lists wait, want %d and %d", s.Lent, s.Waiting, lent, waiting)
	}
}

func TestListBudgetQueue(t *testing.T) {
	const mb = 1 << 20
	ctx := context.Background()
	b := newListBudget(10 * mb)
	first := <-askFor(t, b, ctx, 6*mb)
	second := askFor(t, b, ctx, 5*mb)
	small := askFor(t, b, ctx, mb) // would fit, but is behind the second
	wantBudget(t, b, 6*mb, 2)
	if g := <-askFor(t, b, ctx, listFreeBytes-1); g.lent != nil || g.err != nil {
		t.Errorf("a small answer: %+v", g)
	}
	canceled, cancel := context.WithCancel(ctx)
	third := askFor(t, b, canceled, 20*mb)
	fourth := askFor(t, b, ctx, 2*mb)
	first.lent.held(6 * mb)
	first.lent.freed(mb)
	if len(second) != 1 && (<-second).err != nil {
		t.Error("the second list did not get its turn")
	}
	wantBudget(t, b, 10*mb, 3)
	first.lent.freed(mb)
	<-small
	wantBudget(t, b, 10*mb, 2)
	cancel()
	if a := <-third; !errors.Is(a.err, context.Canceled) {
		t.Errorf("a list that was canceled: %v", a.err)
	}
	wantBudget(t, b, 10*mb, 1)
	first.lent.end()
	<-fourth
	wantBudget(t, b, 8*mb, 0)
	if s := b.Stats(); s.Waited != 4 || s.Wait == 0 {
		t.Errorf("figures: %+v", s)
	}
}

// A list that is larger than the budget goes alone, and what comes out larger than thought keeps the next one waiting.
func TestListBudgetTooSmall(t *testing.T) {
	const mb = 1 << 20
	ctx := context.Background()
	b := newListBudget(mb)
	large := <-askFor(t, b, ctx, 5*mb)
	wantBudget(t, b, 5*mb, 0)
	next := askFor(t, b, ctx, mb/2)
	large.lent.held(7 * mb)
	wantBudget(t, b, 7*mb, 1)
	large.lent.settle()
	large.lent.freed(6 * mb)
	wantBudget(t, b, mb, 1)
	large.lent.freed(mb)
	got := <-next
	got.lent.held(mb / 4)
	got.lent.settle()
	wantBudget(t, b, mb/4, 0)
	got.lent.freed(mb / 4)
	wantBudget(t, b, 0, 0)
	if len(b.loans) != 0 {
		t.Errorf("%d loans are left", len(b.loans))
	}
}

func TestListBudgetWaitersBounded(t *testing.T) {
	b := newListBudget(1)
	ctx, cancel := context.WithCancel(context.Background())
	<-askFor(t, b, ctx, listFreeBytes)
	var waiting []chan asked
	for range listsWaitingMax {
		waiting = append(waiting, askFor(t, b, ctx, listFreeBytes))
	}
	if _, err := b.acquire(ctx, listFreeBytes); err != errTooManyRequests {
		t.Errorf("beyond the bound: %v", err)
	}
	cancel()
	for _, w := range waiting {
		<-w
	}
	wantBudget(t, b, listFreeBytes, 0)
}

// While others wait a client has to read: half a minute after the first of them came, so much per second.
func TestListBudgetSlowReaders(t *testing.T) {
	const size = 100 * listRateMin
	ctx := context.Background()
	b := newListBudget(2 * size)
	dropped := 0
	holder := &listHolder{drop: func() { dropped++ }}
	lazy, _ := b.acquire(context.WithValue(ctx, listHolderKey{}, holder), size)
	defer runtime.KeepAlive(lazy)
	steady, _ := b.acquire(ctx, size)
	defer runtime.KeepAlive(steady)
	lazy.held(size)
	steady.held(size)
	b.lookAt(time.Now().Add(time.Hour)) // nobody waits
	wantBudget(t, b, 2*size, 0)
	next := askFor(t, b, ctx, 2*size)
	began := time.Now()
	b.lookAt(began.Add(listGrace - time.Second))
	wantBudget(t, b, 2*size, 1)
	lazy.freed(10 * listRateMin)
	steady.freed(50 * listRateMin)
	b.lookAt(began.Add(listGrace + 20*time.Second))
	wantBudget(t, b, size-50*listRateMin, 1)
	if dropped != 1 || len(next) != 0 {
		t.Errorf("%d dropped, the next one has its turn: %v", dropped, len(next) == 1)
	}
	b.lookAt(began.Add(2*listGrace + 100*time.Second))
	<-next
	if s := b.Stats(); s.Dropped != 2 {
		t.Errorf("%d lists were broken off", s.Dropped)
	}
}

// TestListBudgetForgotten: what nobody holds any more comes back.
func TestListBudgetForgotten(t *testing.T) {
	b := newListBudget(1 << 30)
	func() {
		g, _ := b.acquire(context.Background(), 1<<20)
		g.hold(&reply{bufs: nil})
		g.held(1 << 20)
	}()
	for b.Stats().Lent != 0 {
		runtime.GC()
	}
}

// listServer holds keys of 8 KiB, and is served through a Front with room for bytes of lists.
func listServer(t *testing.T, keys int, bytes int64) (*testServer, *Front, string) {
	t.Helper()
	ts := startServer(t, Options{ListBytes: bytes})
	for i := range keys {
		if _, err := ts.cli.Put(within(t), fmt.Sprintf("k%05d", i), strings.Repeat("v", 8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFront(FrontOptions{}, []Endpoint{{Listener: ln, GRPC: ts.NewGRPCServer(grpc.Creds(FrontCredentials()))}})
	if err != nil {
		t.Fatal(err)
	}
	f.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = f.Shutdown(ctx)
	})
	return ts, f, ln.Addr().String()
}

// sleeper is a connection that reads little more than it has to, until it is woken.
type sleeper struct {
	net.Conn
	awake chan struct{}
	read  int
}

const sleeperBytes = 64 << 10

func (s *sleeper) Read(p []byte) (int, error) {
	if s.read >= sleeperBytes {
		<-s.awake
	}
	n, err := s.Conn.Read(p)
	s.read += n
	return n, err
}

// sleepy is a client of its own connection that does not read before awake is closed.
func sleepy(t *testing.T, addr string, awake chan struct{}) pb.KVClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxSendBytes)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			_ = c.(*net.TCPConn).SetReadBuffer(sleeperBytes)
			return &sleeper{Conn: c, awake: awake}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return pb.NewKVClient(cc)
}

var everyKey = &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}

// await waits until the budget is in some state. The end of a loan may be up to the collector, which comes only each two minutes by itself
// while nobody allocates.
func (b *listBudget) await(ok func(ListStats) bool) {
	for collected := time.Now(); !ok(b.Stats()); runtime.Gosched() {
		if time.Since(collected) > 100*time.Millisecond {
			runtime.GC()
			collected = time.Now()
		}
	}
}

// TestListsQueue: many lists that nobody reads wait for few, hold next to nothing meanwhile, and are all complete at last.
// Everything else goes on.
func TestListsQueue(t *testing.T) {
	const keys, lists, budget = 500, 200, 3 * 500 * 8 << 10
	ts, _, addr := listServer(t, keys, budget)
	awake := make(chan struct{})
	ctx := within(t)
	answers := make(chan error, lists)
	for range lists {
		kv := sleepy(t, addr, awake)
		go func() {
			r, err := kv.Range(ctx, everyKey)
			if err == nil && (len(r.Kvs) != keys || r.Count != keys) {
				err = fmt.Errorf("%d keys, count %d", len(r.Kvs), r.Count)
			}
			for _, kv := range r.GetKvs() {
				if err == nil && (len(kv.Value) != 8<<10 || bytes.Count(kv.Value, kv.Value[:1]) != 8<<10) {
					err = fmt.Errorf("%s has a value of %d bytes", kv.Key, len(kv.Value))
				}
			}
			answers <- err
		}()
	}
	ts.lists.await(func(s ListStats) bool { return s.Waiting >= lists-3 })
	if s := ts.lists.Stats(); s.Lent > budget+2*listFreeBytes || s.Lent < budget/2 {
		t.Errorf("%d bytes are lent of %d", s.Lent, budget)
	}
	for round := range 4 { // each list that was made from these would keep them
		for i := range keys {
			if _, err := ts.cli.Put(ctx, fmt.Sprintf("k%05d", i), strings.Repeat(string(rune('a'+round)), 8<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r, err := ts.cli.Get(ctx, "k00007"); err != nil || r.Kvs[0].Value[0] != 'd' {
		t.Fatalf("a get beside lists: %v", err)
	}
	if s := ts.lists.Stats(); s.Waiting < lists-3 {
		t.Errorf("%d lists wait, nobody has read", s.Waiting)
	}
	close(awake)
	for range lists {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
	if s := ts.lists.Stats(); s.Waited < lists-3 || s.Dropped != 0 {
		t.Errorf("figures: %+v", s)
	}
}

// TestListsAreNotCompressed: a list of a client that asks for compression is lent what it takes until it is sent, too, as one answer and as a stream.
func TestListsAreNotCompressed(t *testing.T) {
	const keys = 500
	ts, _, addr := listServer(t, keys, 1<<20)
	ctx := within(t)
	zipped := grpc.UseCompressor(gzip.Name)
	whole := func(kv pb.KVClient) (int, error) {
		r, err := kv.Range(ctx, everyKey, zipped)
		return len(r.GetKvs()), err
	}
	stream := func(kv pb.KVClient) (n int, err error) {
		s, err := kv.RangeStream(ctx, everyKey, zipped)
		for err == nil {
			var r *pb.RangeStreamResponse
			if r, err = s.Recv(); errors.Is(err, io.EOF) {
				return n, nil
			}
			n += len(r.GetRangeResponse().GetKvs())
		}
		return n, err
	}
	for name, list := range map[string]func(pb.KVClient) (int, error){"answer": whole, "stream": stream} {
		awake, had := make(chan struct{}), make(chan error, 2)
		ask := func() {
			kv := sleepy(t, addr, awake)
			go func() {
				n, err := list(kv)
				if err == nil && n != keys {
					err = fmt.Errorf("%d keys", n)
				}
				had <- err
			}()
		}
		before := ts.lists.Stats().Loans
		ask()
		ts.lists.await(func(s ListStats) bool { return s.Loans == before+1 })
		ask()
		ts.lists.await(func(s ListStats) bool { return s.Waiting == 1 || s.Loans > before+1 })
		if s := ts.lists.Stats(); s.Waiting != 1 {
			t.Errorf("%s: the second list does not wait for who does not read the first: %+v", name, s)
		}
		close(awake)
		for range 2 {
			if err := <-had; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
	}
}

// TestListsEndWithTheirCall: a client that gives its list up, and one that goes away in the middle of it, give back what it has held.
func TestListsEndWithTheirCall(t *testing.T) {
	const keys = 200
	ts, _, addr := listServer(t, keys, 1<<20)
	awake := make(chan struct{})
	defer close(awake)
	kv := sleepy(t, addr, awake)
	ctx, cancel := context.WithCancel(within(t))
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := kv.Range(ctx, everyKey); err == nil {
			t.Error("a list that was given up is there")
		}
	})
	ts.lists.await(func(s ListStats) bool { return s.Lent > 1<<20 })
	cancel()
	calls.Wait()
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })

	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return &sleeper{Conn: c, awake: awake}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	ctx, cancel = context.WithCancel(within(t))
	calls.Go(func() { _, _ = pb.NewKVClient(cc).Range(ctx, everyKey) })
	ts.lists.await(func(s ListStats) bool { return s.Lent > 1<<20 })
	_ = c.Close()
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
	cancel()
	calls.Wait()
}

// TestListsSlowClientLosesConnection: whoever does not read is cut off when others wait, and those have their lists.
func TestListsSlowClientLosesConnection(t *testing.T) {
	const keys = 200
	ts, _, addr := listServer(t, keys, 1<<20)
	awake := make(chan struct{})
	slow, failed := sleepy(t, addr, awake), make(chan error, 1)
	go func() {
		_, err := slow.Range(within(t), everyKey, grpc.WaitForReady(false))
		failed <- err
	}()
	ts.lists.await(func(s ListStats) bool { return s.Lent > 1<<20 })
	listed := make(chan error, 1)
	go func() {
		r, err := ts.cli.Get(within(t), "k", clientv3.WithPrefix())
		if err == nil && len(r.Kvs) != keys {
			err = fmt.Errorf("%d keys", len(r.Kvs))
		}
		listed <- err
	}()
	ts.lists.await(func(s ListStats) bool { return s.Waiting == 1 })
	ts.lists.lookAt(time.Now().Add(listGrace + 20*time.Second))
	if err := <-listed; err != nil {
		t.Error(err)
	}
	close(awake)
	if err := <-failed; err == nil {
		t.Error("a client that did not read has its list")
	}
	if s := ts.lists.Stats(); s.Dropped != 1 {
		t.Errorf("figures: %+v", s)
	}
}

// TestListsOverHTTP: a list that is sent by way of net/http gives back what it holds when its request ends.
func TestListsOverHTTP(t *testing.T) {
	ts, _, _ := listServer(t, 200, 1<<20)
	g := ts.NewGRPCServer()
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveGRPC(g, w, r) }))
	h.EnableHTTP2 = true
	h.StartTLS()
	defer h.Close()
	call := func() *http.Response {
		msg, err := proto.Marshal(everyKey)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(within(t), http.MethodPost, h.URL+"/etcdserverpb.KV/Range",
			bytes.NewReader(append([]byte{0, 0, 0, 0, byte(len(msg))}, msg...)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		cl := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
			HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}}
		r, err := cl.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, end := range map[string]func(*http.Response){
		"the client goes away": func(r *http.Response) { _ = r.Body.Close() },
		"the client is slow": func(*http.Response) {
			waiting := askFor(t, ts.lists, within(t), 1<<20)
			ts.lists.lookAt(time.Now().Add(time.Hour))
			(<-waiting).lent.end()
		},
	} {
		r := call()
		ts.lists.await(func(s ListStats) bool { return s.Lent > 1<<20 })
		end(r)
		ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
		_ = r.Body.Close()
		t.Log(name)
	}
}

// TestSizeHint: how large an answer is thought to be before it is made.
func TestSizeHint(t *testing.T) {
	ts, _, _ := listServer(t, 100, 1<<20)
	v := ts.store.View()
	mean := v.LiveSize() / 100
	in := func(r *pb.RangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	}
	for name, tc := range map[string]struct {
		req  *pb.RangeRequest
		want int64
	}{
		"all":       {everyKey, 100 * mean},
		"half":      {&pb.RangeRequest{Key: []byte("k00050"), RangeEnd: []byte{0}}, 50 * mean},
		"page":      {&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 7}, 7 * mean},
		"none":      {&pb.RangeRequest{Key: []byte("l"), RangeEnd: []byte("m")}, 0},
		"one":       {&pb.RangeRequest{Key: []byte("k00050")}, 0},
		"count":     {&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true}, 0},
		"keys only": {&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), KeysOnly: true}, 10_000},
	} {
		if got := v.SizeHint(tc.req); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
		txn := &pb.TxnRequest{Success: []*pb.RequestOp{in(tc.req), in(tc.req)}, Failure: []*pb.RequestOp{in(tc.req)}}
		nested := &pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}}}
		if got := v.TxnSizeHint(nested); got != 2*tc.want {
			t.Errorf("%s in a txn: %d, want %d", name, got, 2*tc.want)
		}
	}
}

// TestListsOfAllKinds: whatever is large borrows, and gives all of it back.
func TestListsOfAllKinds(t *testing.T) {
	const keys = 100
	ts, _, _ := listServer(t, keys, 1)
	ctx := within(t)
	if _, err := ts.cli.Put(ctx, "large", strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 { // so that the mean says little of the others
		if _, err := ts.cli.Put(ctx, fmt.Sprintf("a%05d", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	kv := pb.NewKVClient(ts.conn(t))
	ops := []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: everyKey}}}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a")}}} // outside of the others' ranges
	for name, call := range map[string]func() (int, error){
		"range": func() (int, error) {
			r, err := kv.Range(ctx, everyKey)
			return len(r.GetKvs()), err
		},
		"large value": func() (int, error) {
			r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("z")})
			return len(r.GetKvs()) - 1, err
		},
		"stream": func() (int, error) {
			s, err := kv.RangeStream(ctx, everyKey)
			n := 0
			for err == nil {
				var r *pb.RangeStreamResponse
				if r, err = s.Recv(); err == nil {
					n += len(r.GetRangeResponse().GetKvs())
				}
			}
			return n, nil
		},
		"reading txn": func() (int, error) {
			r, err := kv.Txn(ctx, &pb.TxnRequest{Success: ops})
			return len(r.GetResponses()[0].GetResponseRange().GetKvs()), err
		},
		"writing txn": func() (int, error) {
			r, err := kv.Txn(ctx, &pb.TxnRequest{Success: append(ops[:1:1], put)})
			return len(r.GetResponses()[0].GetResponseRange().GetKvs()), err
		},
	} {
		made := ts.lists.Stats().Loans
		if n, err := call(); err != nil || n != keys {
			t.Errorf("%s: %d keys, %v", name, n, err)
		}
		if ts.lists.Stats().Loans == made {
			t.Errorf("%s: nothing was lent", name)
		}
		ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
	}
	made := ts.lists.Stats().Loans
	r, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: everyKey.Key, RangeEnd: everyKey.RangeEnd, PrevKv: true})
	if err != nil || len(r.PrevKvs) != keys+1 && len(r.PrevKvs) != keys || ts.lists.Stats().Loans == made {
		t.Errorf("delete: %d keys, %v, %d loans", len(r.GetPrevKvs()), err, ts.lists.Stats().Loans-made)
	}
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
}

// A list as JSON borrows more, so its client has to give more back in the same time.
func TestListBudgetSlowGateway(t *testing.T) {
	now := time.Now()
	for _, keeps := range []bool{false, true} {
		l := &loan{holder: &listHolder{keeps: keeps}, out: 100 * listRateMin}
		l.expect(now)
		l.out -= 20 * listRateMin
		if slow := l.slow(now.Add(listGrace + 10*time.Second)); slow != keeps {
			t.Errorf("two loans of a second's bytes given back each second, of a gateway %v: slow %v", keeps, slow)
		}
	}
}
