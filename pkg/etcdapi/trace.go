package etcdapi

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// tracerName is etcd's instrumentation scope.
const tracerName = "go.etcd.io/etcd"

// tracer makes the spans of a server: etcd's, with its names and attributes,
// and below those that write one for the fsync and one for the apply that the call
// waited for. A nil one makes none: handlers are wrapped when they are registered,
// so a server without it runs the same instructions as if there were no tracing,
// but for one look in propose.
//
// Fsync and apply are done for many entries at once. Each traced call gets spans
// of its own as children, with the times of the batch and how many entries it had:
// links from one shared span would be lost where the traces of others in the batch
// are not sampled, and no viewer shows them in the place of the time they took.
type tracer struct{ trace.Tracer }

func newTracer(p trace.TracerProvider) *tracer {
	if p == nil {
		return nil
	}
	return &tracer{p.Tracer(tracerName)}
}

// statsHandler takes a call's parent from its traceparent header, as etcd does.
func statsHandler(p trace.TracerProvider) grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelgrpc.WithTracerProvider(p),
	))
}

// traceKey is where the context of a traced call that writes has its
// *raftstore.Trace.
type traceKey struct{}

// storeTrace is what a command is to be traced with; nil: it is not.
func (t *tracer) storeTrace(ctx context.Context) *raftstore.Trace {
	st, _ := ctx.Value(traceKey{}).(*raftstore.Trace)
	return st
}

// start begins the span of a call. end ends it, with those of what it waited for.
func (t *tracer) start(ctx context.Context, name string, attrs []attribute.KeyValue) (_ context.Context, end func(error)) {
	ctx, span := t.Start(ctx, name, trace.WithAttributes(attrs...))
	if !span.IsRecording() {
		return ctx, func(error) {}
	}
	st := &raftstore.Trace{}
	return context.WithValue(ctx, traceKey{}, st), func(err error) {
		if err != nil {
			span.RecordError(err)
		}
		t.batch(ctx, "fsync", st, st.Fsync)
		t.batch(ctx, "apply", st, st.Apply)
		span.End()
	}
}

// batch is the span of something that was done for the entry of st and others.
func (t *tracer) batch(ctx context.Context, name string, st *raftstore.Trace, b raftstore.TracedBatch) {
	if b.Began.IsZero() {
		return
	}
	_, span := t.Start(ctx, name, trace.WithTimestamp(b.Began), trace.WithAttributes(
		attribute.Int64("index", int64(st.Index)), attribute.Int64("term", int64(st.Term)), attribute.Int("batch_entries", b.Entries)))
	span.End(trace.WithTimestamp(b.Ended))
}

// traced is fn with a span around it, or fn itself.
func traced[M any](s *Server, name string, attrs func(*M) []attribute.KeyValue, fn func(*Server, context.Context, *M) (any, error)) func(*Server, context.Context, *M) (any, error) {
	if s.tracer == nil {
		return fn
	}
	return func(s *Server, ctx context.Context, r *M) (any, error) {
		ctx, end := s.tracer.start(ctx, name, attrs(r))
		resp, err := fn(s, ctx, r)
		end(err)
		return resp, err
	}
}

func rangeAttributes(r *rangeRequest) []attribute.KeyValue {
	return append(streamAttributes(&r.RangeRequest), attribute.Bool("keys_only", r.GetKeysOnly()))
}

func streamAttributes(r *pb.RangeRequest) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("range_begin", string(r.GetKey())),
		attribute.String("range_end", string(r.GetRangeEnd())),
		attribute.Int64("rev", r.GetRevision()),
		attribute.Int64("limit", r.GetLimit()),
		attribute.Bool("count_only", r.GetCountOnly()),
	}
}

func putAttributes(r *putRequest) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("key", string(r.GetKey()))}
}

func deleteAttributes(r *deleteRequest) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("range_begin", string(r.GetKey())),
		attribute.String("range_end", string(r.GetRangeEnd())),
	}
}

func compactAttributes(r *pb.CompactionRequest) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.Bool("is_physical", r.GetPhysical()), attribute.Int64("rev", r.GetRevision())}
}

func txnAttributes(r *txnRequest) []attribute.KeyValue {
	compare := ""
	for _, c := range r.GetCompare() {
		if compare == "" {
			compare = string(c.GetKey())
		}
	}
	key, kind, lease := firstOps(r.GetSuccess())
	return []attribute.KeyValue{
		attribute.String("compare_first_key", compare),
		attribute.String("success_first_key", key),
		attribute.String("success_first_type", kind),
		attribute.Int64("success_first_lease", lease),
		attribute.Int("compare_len", len(r.GetCompare())),
		attribute.Int("success_len", len(r.GetSuccess())),
		attribute.Int("failure_len", len(r.GetFailure())),
		attribute.Bool("read_only", mvcc.IsReadOnlyTxn(&r.TxnRequest)),
	}
}

// firstOps is the first key, the kind of the first operation, and the lease of the
// first put, -1 without one.
func firstOps(ops []*pb.RequestOp) (key, kind string, lease int64) {
	lease = -1
	for _, op := range ops {
		k, of := "", ""
		switch x := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			k, of = string(x.RequestPut.GetKey()), "put"
			if lease == -1 {
				lease = x.RequestPut.GetLease()
			}
		case *pb.RequestOp_RequestRange:
			k, of = string(x.RequestRange.GetKey()), "range"
		case *pb.RequestOp_RequestDeleteRange:
			k, of = string(x.RequestDeleteRange.GetKey()), "delete_range"
		case *pb.RequestOp_RequestTxn:
			of = "txn"
		}
		if key == "" {
			key = k
		}
		if kind == "" {
			kind = of
		}
	}
	return key, kind, lease
}

// tracedLeases is leaseServer with spans.
type tracedLeases struct{ leaseServer }

// LeaseGrant creates a lease.
func (s tracedLeases) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	r.ID = chooseLeaseID(r.ID)
	ctx, end := s.tracer.start(ctx, "lease_grant", []attribute.KeyValue{attribute.Int64("id", r.ID), attribute.Int64("ttl", r.GetTTL())})
	resp, err := s.leaseServer.LeaseGrant(ctx, r)
	end(err)
	return resp, err
}

// LeaseRevoke ends a lease.
func (s tracedLeases) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	ctx, end := s.tracer.start(ctx, "lease_revoke", []attribute.KeyValue{attribute.Int64("id", r.GetID())})
	resp, err := s.leaseServer.LeaseRevoke(ctx, r)
	end(err)
	return resp, err
}

// watchSpans are the spans of the watches of one stream: each from its creation
// to its end. A nil one has none.
type watchSpans struct {
	t   *tracer
	ctx context.Context

	mu      sync.Mutex
	created []trace.Span // not answered yet, in their order
	open    map[int64]trace.Span
	ended   bool // the stream has
}

func (t *tracer) watches(ctx context.Context) *watchSpans {
	if t == nil {
		return nil
	}
	return &watchSpans{t: t, ctx: ctx, open: make(map[int64]trace.Span)}
}

// create begins the span of a watch. The goroutine that receives calls it before
// the hub hears of the watch; the hub answers in the same order.
func (w *watchSpans) create(r *pb.WatchCreateRequest) {
	if w == nil {
		return
	}
	key := r.GetKey()
	if len(key) == 0 {
		key = []byte{0}
	}
	end := r.GetRangeEnd()
	if len(end) == 1 && end[0] == 0 {
		end = nil
	}
	_, span := w.t.Start(w.ctx, "watch", trace.WithAttributes(
		attribute.String("key", string(key)),
		attribute.String("range_end", string(end)),
		attribute.Int64("start_rev", r.GetStartRevision()),
		attribute.Bool("progress_notify", r.GetProgressNotify()),
		attribute.Bool("prev_kv", r.GetPrevKv()),
		attribute.Bool("fragment", r.GetFragment()),
	))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		span.End()
		return
	}
	w.created = append(w.created, span)
}

// sent takes what the stream has sent.
func (w *watchSpans) sent(b *watchcache.Batch) {
	if w == nil || b.Kind != watchcache.BatchCreated && b.Kind != watchcache.BatchCancelled {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.Kind == watchcache.BatchCreated && len(w.created) > 0 {
		span := w.created[0]
		w.created = w.created[1:]
		if b.Err == nil {
			w.open[b.WatchID] = span
			return
		}
		span.RecordError(b.Err)
		span.End()
		return
	}
	if span := w.open[b.WatchID]; span != nil {
		if b.Err != nil {
			span.RecordError(b.Err)
		}
		span.End()
		delete(w.open, b.WatchID)
	}
}

// end ends all spans: the stream has ended.
func (w *watchSpans) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, span := range w.created {
		span.End()
	}
	for _, span := range w.open {
		span.End()
	}
	w.created, w.open, w.ended = nil, nil, true
}
