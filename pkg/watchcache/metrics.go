package watchcache

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeshim/shim/pkg/registry"
)

// The etcd_debugging_mvcc_* names are etcd's. pending_events_total counts what a
// sender holds: watchers have no buffers where more could wait.
var (
	descStreams = prometheus.NewDesc("etcd_debugging_mvcc_watch_stream_total",
		"Total number of watch streams.", nil, nil)
	descWatchers = prometheus.NewDesc("etcd_debugging_mvcc_watcher_total",
		"Total number of watchers.", nil, nil)
	descSlow = prometheus.NewDesc("etcd_debugging_mvcc_slow_watcher_total",
		"Total number of unsynced slow watchers.", nil, nil)
	descEvents = prometheus.NewDesc("etcd_debugging_mvcc_events_total",
		"Total number of events sent by this member.", nil, nil)
	descPending = prometheus.NewDesc("etcd_debugging_mvcc_pending_events_total",
		"Total number of pending events to be sent.", nil, nil)

	descWindowEvents = prometheus.NewDesc("shim_watch_window_events",
		"Events held in memory for watchers.", nil, nil)
	descWindowBytes = prometheus.NewDesc("shim_watch_window_bytes",
		"Bytes the events held in memory are charged.", nil, nil)
	descWindowFrom = prometheus.NewDesc("shim_watch_window_start_revision",
		"The first revision whose events are all held in memory.", nil, nil)
	descResourceWatchers = prometheus.NewDesc("shim_resource_watchers",
		"Watchers below the prefix of one resource; empty for wider and other ranges.", []string{"resource"}, nil)
	descResourceEvents = prometheus.NewDesc("shim_resource_watched_events_total",
		"Events of one resource since somebody last began to watch it.", []string{"resource"}, nil)
)

type collector struct{ hub *Hub }

// Collector returns the hub's metrics, for a prometheus registry.
func (h *Hub) Collector() prometheus.Collector { return collector{h} }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descStreams, descWatchers, descSlow, descEvents, descPending,
		descWindowEvents, descWindowBytes, descWindowFrom, descResourceWatchers, descResourceEvents,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.hub.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descStreams, float64(st.Streams))
	gauge(descWatchers, float64(st.Watchers))
	gauge(descSlow, float64(st.Slow))
	gauge(descPending, float64(st.Pending))
	ch <- prometheus.MustNewConstMetric(descEvents, prometheus.CounterValue, float64(st.Events))
	gauge(descWindowEvents, float64(st.WindowEvents))
	gauge(descWindowBytes, float64(st.WindowBytes))
	gauge(descWindowFrom, float64(st.WindowFrom))

	// Several prefixes may be one resource to the registry, or none of its.
	watchers := map[string]int64{"": st.Root}
	events := map[string]uint64{}
	for _, t := range st.Topics {
		r := registry.ResourceOf([]byte(t.Prefix))
		watchers[r] += int64(t.Watchers)
		events[r] += t.Events
	}
	for r, n := range watchers {
		gauge(descResourceWatchers, float64(n), r)
	}
	for r, n := range events {
		ch <- prometheus.MustNewConstMetric(descResourceEvents, prometheus.CounterValue, float64(n), r)
	}
}
