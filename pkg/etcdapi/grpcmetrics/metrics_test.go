package grpcmetrics

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func newServed(t *testing.T, o Options) *Metrics {
	g := grpc.NewServer()
	t.Cleanup(g.Stop)
	healthpb.RegisterHealthServer(g, health.NewServer())
	m := New(o)
	m.InitializeMetrics(g)
	return m
}

func TestSeriesStartAtZero(t *testing.T) {
	m := newServed(t, Options{})
	// Check, List and Watch, each with all codes.
	if n := testutil.CollectAndCount(m, "grpc_server_handled_total"); n != 3*codesMax {
		t.Errorf("%d series of handled calls", n)
	}
	if n := testutil.CollectAndCount(m, "grpc_server_started_total"); n != 3 {
		t.Errorf("%d series of started calls", n)
	}
	if problems, err := testutil.CollectAndLint(m); err != nil || len(problems) != 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	prometheus.NewPedanticRegistry().MustRegister(m)
}

func TestMethodCounts(t *testing.T) {
	m := newServed(t, Options{HandlingTime: true})
	check := m.Method(healthpb.Health_Check_FullMethodName)
	if check == nil || !check.Timed() {
		t.Fatal("no timed method")
	}
	check.Started()
	check.Received()
	check.Handled(codes.NotFound, time.Second)
	check.Handled(codes.Code(99), time.Second)
	labels := []string{"unary", "grpc.health.v1.Health", "Check"}
	for code, want := range map[string]float64{"NotFound": 1, "Unknown": 1, "OK": 0} {
		if got := testutil.ToFloat64(m.handled.WithLabelValues(append(labels, code)...)); got != want {
			t.Errorf("handled with %s: %v", code, got)
		}
	}
	if got := testutil.ToFloat64(m.sent.WithLabelValues(labels...)); got != 0 {
		t.Errorf("sent: %v", got)
	}
	if n := testutil.CollectAndCount(m, "grpc_server_handling_seconds"); n != 3 {
		t.Errorf("%d histograms", n)
	}
}

// TestUnknownMethod checks that a method nobody registered is no method and no crash.
func TestUnknownMethod(t *testing.T) {
	m := newServed(t, Options{}).Method("/a.B/C")
	if m != nil || m.Timed() {
		t.Fatal("found")
	}
	m.Started()
	m.Received()
	m.Sent()
	m.Handled(codes.OK, 0)
}

// TestClientVersionsAreBounded counts more versions than are kept, from several
// goroutines: none is lost, and the surplus is one series.
func TestClientVersionsAreBounded(t *testing.T) {
	m := New(Options{})
	var wg sync.WaitGroup
	const each = 3 * clientVersionsMax
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				m.UnaryClient(fmt.Sprint("v", i))
			}
		}()
	}
	wg.Wait()
	if n := testutil.CollectAndCount(m, "etcd_server_client_requests_total"); n != clientVersionsMax+1 {
		t.Errorf("%d series", n)
	}
	total := testutil.ToFloat64(m.clientRequests.WithLabelValues("unary", "other"))
	for i := range each {
		if by := *m.unary.by.Load(); by[fmt.Sprint("v", i)] != nil {
			total += testutil.ToFloat64(by[fmt.Sprint("v", i)])
		}
	}
	if total != 4*each {
		t.Errorf("%v of %d calls counted", total, 4*each)
	}
}
