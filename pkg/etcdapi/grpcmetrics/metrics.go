package grpcmetrics

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// clientVersionsMax is the number of distinct client versions counted by name.
const clientVersionsMax = 32

// codesMax is the number of gRPC status codes.
const codesMax = int(codes.Unauthenticated) + 1

// Options choose what is measured.
type Options struct {
	// HandlingTime adds the histogram of handling times (etcd: --metrics=extensive).
	HandlingTime bool
}

// Metrics is the collector of one server. Its methods are safe from any goroutine
// once InitializeMetrics returned.
type Metrics struct {
	started, handled, received, sent *prometheus.CounterVec
	handling                         *prometheus.HistogramVec // nil unless asked for
	requests                         *prometheus.HistogramVec // by kind and success; see Request
	clientRequests                   *prometheus.CounterVec
	methods                          map[string]*Method
	unary, stream                    clientCounters
}

// Method counts the calls of one method.
type Method struct {
	started, received, sent prometheus.Counter
	handled                 [codesMax]prometheus.Counter
	handling                prometheus.Observer // nil unless asked for
}

// Request measures what is asked of the store, of one kind. A series is made with
// the first that ends so, as etcd's.
type Request struct{ failed, succeeded func() prometheus.Observer }

// Request is that of a kind, by etcd's name. Each call makes a new one, of the same series.
func (m *Metrics) Request(kind string) Request {
	series := func(success string) func() prometheus.Observer {
		return sync.OnceValue(func() prometheus.Observer { return m.requests.WithLabelValues(kind, success) })
	}
	return Request{failed: series("false"), succeeded: series("true")}
}

// Took counts one that ended.
func (r Request) Took(took time.Duration, success bool) {
	series := r.failed
	if success {
		series = r.succeeded
	}
	series().Observe(took.Seconds())
}

// New returns metrics without methods.
func New(o Options) *Metrics {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		started:  counter("grpc_server_started_total", "Number of calls that were started.", labels...),
		handled:  counter("grpc_server_handled_total", "Number of calls that ended, by status code.", append(labels, "grpc_code")...),
		received: counter("grpc_server_msg_received_total", "Number of messages received from clients.", labels...),
		sent:     counter("grpc_server_msg_sent_total", "Number of messages sent to clients.", labels...),
		clientRequests: counter("etcd_server_client_requests_total",
			"Number of calls by the API version the client says it has.", "type", "client_api_version"),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "etcd_server_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each type.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"type", "success"}),
		methods: map[string]*Method{},
	}
	if o.HandlingTime {
		m.handling = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "grpc_server_handling_seconds",
			Help:    "Time from the start of a call to its end.",
			Buckets: prometheus.DefBuckets,
		}, labels)
	}
	m.unary = clientCounters{kind: "unary", vec: m.clientRequests}
	m.stream = clientCounters{kind: "stream", vec: m.clientRequests}
	return m
}

// InitializeMetrics makes the counters of every method registered at g. It is
// called once, after registration and before serving.
func (m *Metrics) InitializeMetrics(g *grpc.Server) {
	for service, info := range g.GetServiceInfo() {
		for _, method := range info.Methods {
			m.methods["/"+service+"/"+method.Name] = m.newMethod(callType(method), service, method.Name)
		}
	}
}

func callType(i grpc.MethodInfo) string {
	switch {
	case i.IsClientStream && i.IsServerStream:
		return "bidi_stream"
	case i.IsClientStream:
		return "client_stream"
	case i.IsServerStream:
		return "server_stream"
	default:
		return "unary"
	}
}

func (m *Metrics) newMethod(labels ...string) *Method {
	r := &Method{
		started:  m.started.WithLabelValues(labels...),
		received: m.received.WithLabelValues(labels...),
		sent:     m.sent.WithLabelValues(labels...),
	}
	for c := range r.handled {
		r.handled[c] = m.handled.WithLabelValues(append(labels, codes.Code(c).String())...)
	}
	if m.handling != nil {
		r.handling = m.handling.WithLabelValues(labels...)
	}
	return r
}

// Method returns the counters of a full method name ("/service/method"), or nil
// if no such method was registered; all methods of a nil *Method do nothing.
func (m *Metrics) Method(full string) *Method { return m.methods[full] }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	cs := []prometheus.Collector{m.started, m.handled, m.received, m.sent, m.clientRequests, m.requests}
	if m.handling != nil {
		cs = append(cs, m.handling)
	}
	return cs
}

// Started counts a call that begins.
func (m *Method) Started() {
	if m != nil {
		m.started.Inc()
	}
}

// Received counts a message from the client, or the attempt to get one.
func (m *Method) Received() {
	if m != nil {
		m.received.Inc()
	}
}

// Sent counts a message to the client, or an error in its place.
func (m *Method) Sent() {
	if m != nil {
		m.sent.Inc()
	}
}

// Timed says whether the handling time is wanted, so that the clock is read only then.
func (m *Method) Timed() bool { return m != nil && m.handling != nil }

// Handled counts a call that ended; took is ignored unless Timed.
func (m *Method) Handled(code codes.Code, took time.Duration) {
	if m == nil {
		return
	}
	if int(code) >= codesMax {
		code = codes.Unknown
	}
	m.handled[code].Inc()
	if m.handling != nil {
		m.handling.Observe(took.Seconds())
	}
}

// UnaryClient counts a unary call by the client's API version.
func (m *Metrics) UnaryClient(version string) { m.unary.inc(version) }

// StreamClient counts a stream by the client's API version.
func (m *Metrics) StreamClient(version string) { m.stream.inc(version) }

// clientCounters finds the counter of a client version without a lock: the map
// is replaced, never changed.
type clientCounters struct {
	kind string
	vec  *prometheus.CounterVec
	mu   sync.Mutex // held while adding a version
	by   atomic.Pointer[map[string]prometheus.Counter]
}

func (c *clientCounters) inc(version string) {
	if by := c.by.Load(); by != nil {
		if counter, ok := (*by)[version]; ok {
			counter.Inc()
			return
		}
	}
	c.add(version).Inc()
}

func (c *clientCounters) add(version string) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[string]prometheus.Counter{}
	if by := c.by.Load(); by != nil {
		if counter, ok := (*by)[version]; ok {
			return counter
		}
		if len(*by) >= clientVersionsMax {
			return c.vec.WithLabelValues(c.kind, "other")
		}
		for k, v := range *by {
			next[k] = v
		}
	}
	version = strings.Clone(version) // it may be part of a larger header block
	counter := c.vec.WithLabelValues(c.kind, version)
	next[version] = counter
	c.by.Store(&next)
	return counter
}
