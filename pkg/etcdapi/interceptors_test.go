package etcdapi

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestRequireLeader(t *testing.T) {
	ts := startServer(t, Options{})
	ctx := clientv3.WithRequireLeader(within(t))
	mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", "v"))
	stream := mustOf[pb.KV_RangeStreamClient](t)(pb.NewKVClient(ts.conn(t)).RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")}))
	mustOf[*pb.RangeStreamResponse](t)(stream.Recv())
}

// TestLeaderContext checks that a lost leader shows as the error of the context,
// and the client's own end as itself.
func TestLeaderContext(t *testing.T) {
	lost := make(chan struct{})
	c := newLeaderContext(context.Background(), lost)
	if c.Err() != nil {
		t.Fatalf("at first: %v", c.Err())
	}
	close(lost)
	<-c.Done()
	if !errors.Is(c.Err(), rpctypes.ErrGRPCNoLeader) {
		t.Errorf("after the loss: %v", c.Err())
	}
	c.stop()

	parent, cancel := context.WithCancel(context.Background())
	c = newLeaderContext(parent, make(chan struct{}))
	cancel()
	<-c.Done()
	if !errors.Is(c.Err(), context.Canceled) {
		t.Errorf("after the client left: %v", c.Err())
	}
	c.stop()
}

func TestClientVersion(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	named := metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataClientAPIVersionKey, "3.7")
	mustOf[*pb.RangeResponse](t)(kv.Range(named, &pb.RangeRequest{Key: []byte("k")}))
	if v, err := clientVersion(metadata.NewIncomingContext(ctx, metadata.Pairs(rpctypes.MetadataClientAPIVersionKey, "\xff"))); err != rpctypes.ErrGRPCInvalidClientAPIVersion {
		t.Errorf("version %q, %v", v, err)
	}
}

func TestGRPCMetrics(t *testing.T) {
	ts, ctx := startServer(t, Options{ExtensiveMetrics: true}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}))
	if _, err := kv.Range(ctx, &pb.RangeRequest{}); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCEmptyKey).Message() {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(ts.GRPCMetrics())
	page := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	lines := strings.Split(page.Body.String(), "\n")
	for _, line := range []string{
		`grpc_server_started_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`grpc_server_msg_received_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`grpc_server_msg_sent_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 0`,
		`grpc_server_handling_seconds_count{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 2`,
	} {
		if !slices.Contains(lines, line) {
			t.Errorf("no line %s", line)
		}
	}
}
