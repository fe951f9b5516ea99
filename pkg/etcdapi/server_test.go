package etcdapi

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// testServer is a server on a loopback port with a real store in a temporary directory.
type testServer struct {
	*Server
	addr string
	cli  *clientv3.Client
}

// startServer starts one and ends it with the test.
func startServer(t testing.TB, opts Options, tune ...func(*raftstore.Config)) *testServer {
	t.Helper()
	var hub atomic.Pointer[watchcache.Hub]
	cfg := raftstore.Config{
		DataDir: t.TempDir(),
		OnApply: func(v *mvcc.View, events []mvcc.Event) {
			if h := hub.Load(); h != nil {
				h.Append(v, events)
			}
		},
	}
	for _, f := range tune {
		f(&cfg)
	}
	store, err := raftstore.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	h := watchcache.New(watchcache.Options{}, watchcache.Env{View: store.View})
	hub.Store(h)
	h.Append(store.View(), nil)

	ts := &testServer{Server: New(opts, store, h)}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := ts.NewGRPCServer()
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it was stopped before it began
			t.Error(err)
		}
	})
	ts.addr = lis.Addr().String()
	ts.cli = ts.client(t)
	return ts
}

// client returns a further client.
func (ts *testServer) client(t testing.TB) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{ts.addr}, DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// conn returns a plain gRPC connection.
func (ts *testServer) conn(t testing.TB) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(ts.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxSendBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// within is a context for calls that end before the tests are given up.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
