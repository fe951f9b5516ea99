package robustness

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kubeshim/shim/test/robustness/history"
)

// goodClient is somebody who behaves, and must not notice the others.
type goodClient struct {
	b      *bookkeeper
	stream pb.Watch_WatchClient
	n      int
}

func newGoodClient(t *testing.T, ctx context.Context, conn *grpc.ClientConn) *goodClient {
	t.Helper()
	g := &goodClient{b: newBookkeeper(t, conn)}
	g.works("at first")
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(history.WatchSpec{Key: "good/", End: "good0"}.Request(0)); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || !r.Created {
		t.Fatalf("created: %v, %v", r, err)
	}
	g.stream = stream
	return g
}

// works: a put, its event, and all that was put is there.
func (g *goodClient) works(when string) {
	g.b.t.Helper()
	g.n++
	key := fmt.Sprintf("good/%d", g.n)
	if err := g.b.put(key, when, 0); err != nil {
		g.b.t.Fatalf("put %s: %v", when, err)
	}
	if g.stream == nil {
		return
	}
	r, err := g.stream.Recv()
	if err != nil || len(r.Events) != 1 || string(r.Events[0].Kv.Key) != key {
		g.b.t.Fatalf("watch %s: %v, %v", when, r, err)
	}
}

func (g *goodClient) end() {
	g.b.t.Helper()
	ctx, cancel := patiently()
	defer cancel()
	resp, err := g.b.kv.Range(ctx, &pb.RangeRequest{Key: []byte("good/"), RangeEnd: []byte("good0")})
	if err != nil || int(resp.Count) != g.n {
		g.b.t.Errorf("%d keys are there (%v), %d were put", resp.GetCount(), err, g.n)
	}
}

// raw opens a connection, writes, and leaves it open until the test ends.
func raw(t *testing.T, addr string, data []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = c.Write(data) // the server may have hung up already
	return c
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// brokenStarts is what connections begin with that nobody can make sense of.
var brokenStarts = map[string][]byte{
	"nothing":               nil,
	"noise":                 {0, 1, 2, 3, 0xff, 0xfe},
	"half a preface":        []byte(preface[:10]),
	"a preface":             []byte(preface),
	"a wrong preface":       []byte("PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"),
	"frames without end":    append([]byte(preface), bytes.Repeat([]byte{0xff}, 100_000)...),
	"headers for stream 0":  append([]byte(preface), 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 0, 0x82),
	"half a request":        []byte("GET /metrics HTTP/1.1\r\nHost: x\r\n"),
	"a long request line":   append([]byte("GET /"), bytes.Repeat([]byte("x"), 4<<20)...),
	"TLS in the clear":      {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
	"a body without an end": []byte("POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{"),
}

// TestAbuse: clients that break the rules do not disturb others.
func TestAbuse(t *testing.T) {
	t.Parallel()
	s := startServer(t, filepath.Join(t.TempDir(), "data"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	good := newGoodClient(t, ctx, s.dial())
	for name, data := range brokenStarts {
		for range 30 {
			raw(t, s.client, data)
		}
		good.works("beside connections with " + name)
	}
	oversized(t, s)
	good.works("after oversized requests")
	manyWatches(t, ctx, s, good)
	good.works("beside 10,000 watches of another stream")
	resp, err := http.Get("http://" + s.client + "/health")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/health: %s %s", resp.Status, body)
	}
	good.end()
}

// oversized asks for too much in several ways, and nothing of it happens.
func oversized(t *testing.T, s *server) {
	t.Helper()
	b := newBookkeeper(t, s.dial())
	rev := b.revision()
	for _, size := range []int{1_600_000, 2 << 20, 64 << 20} {
		if err := b.put("oversized", string(make([]byte, size)), 0); err == nil {
			t.Errorf("a value of %d bytes was taken", size)
		}
	}
	ctx, cancel := patiently()
	defer cancel()
	txn := &pb.TxnRequest{}
	for i := range 1000 {
		txn.Success = append(txn.Success, history.PutOp(fmt.Sprintf("oversized/%d", i), []byte("x")))
	}
	if _, err := b.kv.Txn(ctx, txn); err == nil {
		t.Error("a txn of 1,000 operations was taken")
	}
	if now := b.revision(); now != rev {
		t.Errorf("revision %d after %d: something of it has happened", now, rev)
	}
}

// manyWatches makes 10,000 watches on one stream, does not read for a while, and then finds them all.
func manyWatches(t *testing.T, ctx context.Context, s *server, good *goodClient) {
	t.Helper()
	const watches = 10_000
	stream, err := pb.NewWatchClient(s.dial()).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for i := range watches {
			if err := stream.Send(history.WatchSpec{Key: fmt.Sprintf("many/%d", i)}.Request(0)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range 20 {
		good.works("while another stream makes watches and does not read")
	}
	for i := range watches {
		r, err := stream.Recv()
		if err != nil || !r.Created || r.Canceled {
			t.Fatalf("watch %d: %v, %v", i, r, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 4711, watches - 1} {
		good.b.mustPut(fmt.Sprintf("many/%d", i), "x")
		r, err := stream.Recv()
		if err != nil || len(r.Events) != 1 || string(r.Events[0].Kv.Key) != fmt.Sprintf("many/%d", i) {
			t.Fatalf("event of watch %d: %v, %v", i, r, err)
		}
	}
}

// TestUnfinishedHandshakes: TLS handshakes that never end do not keep others out.
func TestUnfinishedHandshakes(t *testing.T) {
	t.Parallel()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), "--auto-tls")
	s.scheme = "https"
	s.start()
	hello := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}
	for i := range 300 {
		raw(t, s.client, hello[:i%len(hello)])
	}
	for range 30 {
		raw(t, s.client, []byte("not TLS at all\r\n\r\n"))
		raw(t, s.client, []byte(preface))
	}
	conn, err := grpc.NewClient(s.client, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	good := newGoodClient(t, ctx, conn)
	good.works("beside handshakes that do not end")
	good.end()
	if code := s.signal(os.Interrupt); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
