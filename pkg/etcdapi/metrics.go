package etcdapi

import (
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/version"
	"golang.org/x/sys/unix"
)

// HealthMetrics count the health checks under etcd's names.
type HealthMetrics struct {
	success, failures prometheus.Counter
	result            *prometheus.GaugeVec
	total             *prometheus.CounterVec
}

// NewHealthMetrics registers them with reg.
func NewHealthMetrics(reg prometheus.Registerer) *HealthMetrics {
	m := &HealthMetrics{
		success: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_health_success",
			Help: "The total number of successful health checks",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_health_failures",
			Help: "The total number of failed health checks",
		}),
		result: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "etcd_server_healthcheck",
			Help: "The result of each kind of healthcheck.",
		}, []string{"type", "name"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_server_healthchecks_total",
			Help: "The total number of each kind of healthcheck.",
		}, []string{"type", "name", "status"}),
	}
	reg.MustRegister(m.success, m.failures, m.result, m.total)
	return m
}

// RangeMetrics measure how long the store takes to answer a range, under etcd's
// name. A nil one measures nothing.
type RangeMetrics struct{ succeeded, failed prometheus.Observer }

// NewRangeMetrics registers them with reg.
func NewRangeMetrics(reg prometheus.Registerer) *RangeMetrics {
	all := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "etcd_server_range_duration_seconds",
		Help:    "How long it took to look up a range and to make the answer, without waiting for a linearizable View.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 20),
	}, []string{"success"})
	reg.MustRegister(all)
	return &RangeMetrics{succeeded: all.WithLabelValues("true"), failed: all.WithLabelValues("false")}
}

// begin is when a range began.
func (m *RangeMetrics) begin() (began time.Time) {
	if m != nil {
		began = time.Now()
	}
	return began
}

// end measures one.
func (m *RangeMetrics) end(began time.Time, err error) {
	switch {
	case m == nil:
	case err == nil:
		m.succeeded.Observe(time.Since(began).Seconds())
	default:
		m.failed.Observe(time.Since(began).Seconds())
	}
}

// verdict counts one answer of /health.
func (m *HealthMetrics) verdict(healthy bool) {
	if healthy {
		m.success.Inc()
	} else {
		m.failures.Inc()
	}
}

// check counts one named check of /livez or /readyz.
func (m *HealthMetrics) check(kind, name string, ok bool) {
	status, result := "error", 0.0
	if ok {
		status, result = "success", 1
	}
	m.result.WithLabelValues(kind, name).Set(result)
	m.total.WithLabelValues(kind, name, status).Inc()
}

// What the process knows about itself, and about the resources in its store,
// read at scrape time. What the store knows about itself it registers.
var (
	descVersion = prometheus.NewDesc("etcd_server_version",
		"Which version is running. 1 for 'server_version' label with current version.", []string{"server_version"}, nil)
	descGoVersion = prometheus.NewDesc("etcd_server_go_version",
		"Which Go version server is running with. 1 for 'server_go_version' label with current version.", []string{"server_go_version"}, nil)
	descFeature = prometheus.NewDesc("etcd_server_feature_enabled",
		"Whether or not a feature is enabled. 1 is enabled, 0 is not.", []string{"name", "stage"}, nil)
	descReceived = prometheus.NewDesc("etcd_network_client_grpc_received_bytes_total",
		"The total number of bytes received from grpc clients.", nil, nil)
	descSent = prometheus.NewDesc("etcd_network_client_grpc_sent_bytes_total",
		"The total number of bytes sent to grpc clients.", nil, nil)
	descFDUsed = prometheus.NewDesc("os_fd_used", "The number of used file descriptors.", nil, nil)
	descFDMax  = prometheus.NewDesc("os_fd_limit", "The file descriptor limit.", nil, nil)

	descPutB = prometheus.NewDesc("etcd_debugging_mvcc_total_put_size_in_bytes",
		"The total size of put kv pairs seen by this member.", nil, nil)
	descShim     = prometheus.NewDesc("shim_build_info", "The version of shim; 1.", []string{"version"}, nil)
	descConns    = prometheus.NewDesc("shim_connections", "Open connections of clients and peers.", nil, nil)
	descConnsMax = prometheus.NewDesc("shim_connections_limit",
		"The number of connections beyond which clients wait to be accepted.", nil, nil)
	descListMax = prometheus.NewDesc("shim_lists_limit_bytes",
		"How many bytes of large answers may be under way before further ones wait.", nil, nil)
	descListLent = prometheus.NewDesc("shim_lists_bytes", "Bytes of large answers that are under way.", nil, nil)
	descListAll  = prometheus.NewDesc("shim_lists_total", "Large answers, which are counted while they are under way.", nil, nil)
	descListWait = prometheus.NewDesc("shim_lists_waiting", "Large answers that wait until there is room for them.", nil, nil)
	descListHad  = prometheus.NewDesc("shim_lists_waited_total", "Large answers that have had to wait.", nil, nil)
	descListTook = prometheus.NewDesc("shim_lists_wait_seconds_total", "How long large answers have waited in all.", nil, nil)
	descListDrop = prometheus.NewDesc("shim_lists_dropped_total",
		"Large answers broken off with their connections, as the client did not read while others waited.", nil, nil)
	descObjs = prometheus.NewDesc("shim_resource_objects",
		"Live objects of a /registry resource; empty for keys outside.", []string{"resource"}, nil)
	descGrowth = prometheus.NewDesc("shim_quota_growth_bytes",
		"By how much the resources and namespaces that have grown most did so over the last 15 to 20 % of the quota; none below 80 %.",
		[]string{"resource", "namespace"}, nil)
	descObjB = prometheus.NewDesc("shim_resource_bytes",
		"Bytes of the rows of the live objects of a resource, as the quota counts them.", []string{"resource"}, nil)
	descWrites = prometheus.NewDesc("shim_resource_writes_total",
		"Writes to a resource since the start, by kind.", []string{"resource", "kind"}, nil)
)

// MetricsEnv is where the server's metrics come from. All fields must be set.
type MetricsEnv struct {
	Version     string                         // of shim
	Traffic     func() (received, sent uint64) // of the gRPC connections
	Connections func() (open, limit int)
	Lists       func() ListStats
	Resources   *Resources
	Features    []FeatureState
}

// FeatureState is a feature gate and what it is set to.
type FeatureState struct {
	Name, Stage string
	On          bool
}

// serverCollector reads an Env at scrape time.
type serverCollector struct{ env MetricsEnv }

// NewServerCollector returns the metrics of the process as a whole.
func NewServerCollector(env MetricsEnv) prometheus.Collector { return serverCollector{env} }

// Describe implements prometheus.Collector.
func (serverCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descVersion, descGoVersion, descFeature, descReceived, descSent, descFDUsed, descFDMax, descPutB,
		descShim, descConns, descConnsMax, descListMax, descListLent, descListAll, descListWait, descListHad, descListTook, descListDrop, descObjs, descObjB, descGrowth, descWrites,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c serverCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descVersion, 1, version.Version)
	gauge(descGoVersion, 1, runtime.Version())
	gauge(descShim, 1, c.env.Version)
	for _, f := range c.env.Features {
		on := 0.0
		if f.On {
			on = 1
		}
		gauge(descFeature, on, f.Name, f.Stage)
	}
	received, sent := c.env.Traffic()
	counter(descReceived, received)
	counter(descSent, sent)
	open, limit := c.env.Connections()
	gauge(descConns, float64(open))
	gauge(descConnsMax, float64(limit))
	lists := c.env.Lists()
	gauge(descListMax, float64(lists.Limit))
	gauge(descListLent, float64(lists.Lent))
	counter(descListAll, lists.Loans)
	gauge(descListWait, float64(lists.Waiting))
	counter(descListHad, lists.Waited)
	counter(descListDrop, lists.Dropped)
	ch <- prometheus.MustNewConstMetric(descListTook, prometheus.CounterValue, lists.Wait.Seconds())
	if used, limit, ok := descriptors(); ok {
		gauge(descFDUsed, used)
		gauge(descFDMax, limit)
	}
	byName, putSize, ok := c.env.Resources.snapshot()
	if !ok {
		return
	}
	gauge(descPutB, float64(putSize))
	for _, g := range c.env.Resources.growth.recent() {
		gauge(descGrowth, float64(g.Grown), g.Resource, g.Namespace)
	}
	for name, r := range byName {
		gauge(descObjs, float64(r.Objects), name)
		gauge(descObjB, float64(r.Bytes), name)
		counter(descWrites, r.Creates, name, "create")
		counter(descWrites, r.Updates, name, "update")
		counter(descWrites, r.Deletes, name, "delete")
	}
}

// descriptors are the open ones and their limit, where /proc tells.
func descriptors() (used, limit float64, ok bool) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, 0, false
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, 0, false
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, 0, false
	}
	return float64(len(names)), float64(lim.Cur), true
}
