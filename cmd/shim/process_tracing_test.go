package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// collector is an OTLP collector that keeps what it gets.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	addr string

	mu        sync.Mutex
	spans     []*tracepb.Span
	resources map[string]bool // "key=value"
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: ln.Addr().String(), resources: map[string]bool{}}
	g := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(g, c)
	go g.Serve(ln)
	t.Cleanup(g.Stop)
	return c
}

// Export implements the collector's service.
func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, a := range rs.GetResource().GetAttributes() {
			c.resources[a.Key+"="+a.GetValue().GetStringValue()] = true
		}
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// traceOf is the ID of the nth trace that the test begins, spanOf that of its own span.
func traceOf(n int) string { return fmt.Sprintf("%032x", 0xabc000+n) }
func spanOf(n int) string  { return fmt.Sprintf("%016x", 0xdef000+n) }

// calledBy is the context of a call whose caller traces it, or has decided not to.
func calledBy(n int, sampled bool) context.Context {
	flags := "00"
	if sampled {
		flags = "01"
	}
	return metadata.AppendToOutgoingContext(context.Background(), "traceparent", "00-"+traceOf(n)+"-"+spanOf(n)+"-"+flags)
}

// tree is the spans of a trace as "parent>name", the caller's as "caller". It fails
// if a span's parent is not there, or did not last as long.
func (c *collector) tree(t *testing.T, trace string) map[string]*tracepb.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == trace {
			byID[hex.EncodeToString(s.SpanId)] = s
		}
	}
	tree := map[string]*tracepb.Span{}
	for _, s := range byID {
		parent, name := byID[hex.EncodeToString(s.ParentSpanId)], "caller"
		if parent != nil {
			name = parent.Name
			if s.StartTimeUnixNano < parent.StartTimeUnixNano || s.EndTimeUnixNano > parent.EndTimeUnixNano {
				t.Errorf("%s: span %s is not within %s", trace, s.Name, name)
			}
		} else if !strings.HasPrefix(hex.EncodeToString(s.ParentSpanId), "0000000000def") {
			t.Errorf("%s: the parent of span %s is missing", trace, s.Name)
		}
		tree[name+">"+s.Name] = s
	}
	return tree
}

func attributeOf(s *tracepb.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.Key == key {
			return strings.TrimPrefix(strings.TrimPrefix(strings.ReplaceAll(a.GetValue().String(), "\"", ""), "string_value:"), "int_value:")
		}
	}
	return ""
}

// checkCalls is the spans of one call of each kind.
func (c *collector) checkCalls(t *testing.T) {
	t.Helper()
	for n, want := range map[int][]string{
		100: {"caller>etcdserverpb.KV/Range", "etcdserverpb.KV/Range>range"},
		101: {"caller>etcdserverpb.KV/Txn", "etcdserverpb.KV/Txn>txn", "txn>fsync", "txn>apply"},
		102: {"caller>etcdserverpb.KV/DeleteRange", "etcdserverpb.KV/DeleteRange>delete_range", "delete_range>fsync", "delete_range>apply"},
		103: {"caller>etcdserverpb.Watch/Watch", "etcdserverpb.Watch/Watch>watch"},
		104: {"caller>etcdserverpb.Lease/LeaseGrant", "etcdserverpb.Lease/LeaseGrant>lease_grant", "lease_grant>fsync", "lease_grant>apply"},
		105: {},
	} {
		tree := c.tree(t, traceOf(n))
		for _, name := range want {
			if tree[name] == nil {
				t.Errorf("call %d: no span %s in %v", n, name, tree)
			}
		}
		if len(tree) != len(want) {
			t.Errorf("call %d has the spans %v", n, tree)
		}
	}
}

// TestProcessTracing: calls that a caller traces have etcd's spans below the
// caller's, and each that writes those of the fsync and the apply that it waited
// for, however many were done with them.
func TestProcessTracing(t *testing.T) {
	c := newCollector(t)
	p := start(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address="+c.addr,
		"--distributed-tracing-service-name=the-etcd", "--distributed-tracing-instance-id=one")
	cli := p.dial()
	const writers = 64
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			if _, err := cli.Put(calledBy(n, true), fmt.Sprint("k", n), "v"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	do := func(n int, err error) {
		if err != nil {
			t.Fatal(n, err)
		}
	}
	_, err := cli.Get(calledBy(100, true), "k", clientv3.WithPrefix(), clientv3.WithLimit(3))
	do(100, err)
	_, err = cli.Txn(calledBy(101, true)).If(clientv3.Compare(clientv3.Version("k1"), ">", 0)).Then(clientv3.OpPut("k1", "w")).Commit()
	do(101, err)
	_, err = cli.Delete(calledBy(102, true), "k2")
	do(102, err)
	watching, cancel := context.WithCancel(calledBy(103, true))
	if w := <-cli.Watch(watching, "k", clientv3.WithPrefix(), clientv3.WithRev(2)); w.Err() != nil {
		t.Fatal(w.Err())
	}
	cancel()
	_, err = cli.Grant(calledBy(104, true), 100)
	do(104, err)
	_, err = cli.Put(calledBy(105, false), "not", "traced")
	do(105, err)
	_, err = cli.Put(context.Background(), "neither", "traced")
	do(106, err)
	_ = cli.Close()
	p.stop(syscall.SIGTERM) // sends what was not sent yet

	for _, want := range []string{"service.name=the-etcd", "service.instance.id=one"} {
		if !c.resources[want] {
			t.Errorf("resources %v lack %s", c.resources, want)
		}
	}
	batches := map[string]int{}
	for n := range writers {
		tree := c.tree(t, traceOf(n))
		put, fsync, apply := tree["etcdserverpb.KV/Put>put"], tree["put>fsync"], tree["put>apply"]
		if tree["caller>etcdserverpb.KV/Put"] == nil || put == nil || fsync == nil || apply == nil || len(tree) != 4 {
			t.Fatalf("put %d has the spans %v", n, tree)
		}
		if attributeOf(put, "key") != fmt.Sprint("k", n) || attributeOf(fsync, "index") != attributeOf(apply, "index") || fsync.EndTimeUnixNano > apply.StartTimeUnixNano {
			t.Errorf("put %d: %v, %v, %v", n, put, fsync, apply)
		}
		batches[fmt.Sprint(fsync.StartTimeUnixNano)]++
	}
	if len(batches) == writers {
		t.Error("no fsync was shared: the test shows nothing about batches")
	}
	c.checkCalls(t)
	if s := c.tree(t, traceOf(100))["etcdserverpb.KV/Range>range"]; attributeOf(s, "range_begin") != "k" || attributeOf(s, "limit") != "3" {
		t.Errorf("range: %v", s)
	}
	for _, s := range c.spans {
		if trace := hex.EncodeToString(s.TraceId); !strings.HasPrefix(trace, "00000000000000000000000000abc") {
			t.Errorf("span %s of a call that nobody traces", s.Name)
		}
	}
}

// TestProcessTracingRate: with a rate of a million in a million every call is
// traced whose caller has not decided.
func TestProcessTracingRate(t *testing.T) {
	c := newCollector(t)
	p := start(t, t.TempDir(), "--enable-distributed-tracing", "--distributed-tracing-address="+c.addr, "--distributed-tracing-sampling-rate=1000000")
	cli := p.dial()
	for _, ctx := range []context.Context{context.Background(), calledBy(1, false)} {
		if _, err := cli.Put(ctx, "a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	_ = cli.Close()
	p.stop(syscall.SIGTERM)
	c.mu.Lock()
	defer c.mu.Unlock()
	puts := 0
	for _, s := range c.spans {
		if s.Name == "put" {
			puts++
		}
	}
	if puts != 1 {
		t.Errorf("%d puts were traced", puts)
	}
}
