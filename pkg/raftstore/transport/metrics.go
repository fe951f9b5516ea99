package transport

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/types"
)

// metrics are the numbers of the peer network under etcd's names. Labels are IDs in hexadecimal.
type metrics struct {
	local        string
	active       *prometheus.GaugeVec
	disconnected *prometheus.CounterVec
	sent         *prometheus.CounterVec
	received     *prometheus.CounterVec
	sentFailed   *prometheus.CounterVec
	recvFailed   *prometheus.CounterVec
	rtt          *prometheus.HistogramVec

	snapSend, snapReceive snapshotMetrics
}

// snapshotMetrics are those of one direction.
type snapshotMetrics struct {
	done, failed *prometheus.CounterVec
	inflight     *prometheus.GaugeVec
	seconds      *prometheus.HistogramVec
}

func newMetrics(member uint64, r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "etcd", Subsystem: "network", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "etcd", Subsystem: "network", Name: name, Help: help}, labels)
	}
	seconds := func(name, help string, start float64, n int, label string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "etcd", Subsystem: "network", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(start, 2, n)}, []string{label})
	}
	m := &metrics{
		local:        types.ID(member).String(),
		active:       gauge("active_peers", "The current number of active peer connections.", "Local", "Remote"),
		disconnected: counter("disconnected_peers_total", "The total number of disconnected peers.", "Local", "Remote"),
		sent:         counter("peer_sent_bytes_total", "The total number of bytes sent to peers.", "To"),
		received:     counter("peer_received_bytes_total", "The total number of bytes received from peers.", "From"),
		sentFailed:   counter("peer_sent_failures_total", "The total number of send failures from peers.", "To"),
		recvFailed:   counter("peer_received_failures_total", "The total number of receive failures from peers.", "From"),
		rtt:          seconds("peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers", 0.0001, 16, "To"),
		snapSend: snapshotMetrics{
			done:     counter("snapshot_send_success", "Total number of successful snapshot sends", "To"),
			failed:   counter("snapshot_send_failures", "Total number of snapshot send failures", "To"),
			inflight: gauge("snapshot_send_inflights_total", "Total number of inflight snapshot sends", "To"),
			seconds:  seconds("snapshot_send_total_duration_seconds", "Total latency distributions of v3 snapshot sends", 0.1, 10, "To"),
		},
		snapReceive: snapshotMetrics{
			done:     counter("snapshot_receive_success", "Total number of successful snapshot receives", "From"),
			failed:   counter("snapshot_receive_failures", "Total number of snapshot receive failures", "From"),
			inflight: gauge("snapshot_receive_inflights_total", "Total number of inflight snapshot receives", "From"),
			seconds:  seconds("snapshot_receive_total_duration_seconds", "Total latency distributions of v3 snapshot receives", 0.1, 10, "From"),
		},
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.active, m.disconnected, m.sent, m.received, m.sentFailed, m.recvFailed, m.rtt,
		m.snapSend.done, m.snapSend.failed, m.snapSend.inflight, m.snapSend.seconds,
		m.snapReceive.done, m.snapReceive.failed, m.snapReceive.inflight, m.snapReceive.seconds,
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// linkMetrics are those of one peer that this member sends to.
type linkMetrics struct {
	active                         prometheus.Gauge
	disconnected, sent, sentFailed prometheus.Counter
	rtt                            prometheus.Observer
}

func (m *metrics) link(to uint64) linkMetrics {
	id := types.ID(to).String()
	return linkMetrics{
		active: m.active.WithLabelValues(m.local, id), disconnected: m.disconnected.WithLabelValues(m.local, id),
		sent: m.sent.WithLabelValues(id), sentFailed: m.sentFailed.WithLabelValues(id), rtt: m.rtt.WithLabelValues(id),
	}
}

// from are the counters of one peer that sends to this member.
func (m *metrics) from(id uint64) (received, failed prometheus.Counter) {
	label := types.ID(id).String()
	return m.received.WithLabelValues(label), m.recvFailed.WithLabelValues(label)
}

// begin counts a snapshot as under way, and done as over.
func (s *snapshotMetrics) begin(peer uint64) {
	s.inflight.WithLabelValues(types.ID(peer).String()).Inc()
}

func (s *snapshotMetrics) end(e SnapshotDone) {
	id := e.Peer.String()
	s.inflight.WithLabelValues(id).Dec()
	if e.Err != nil {
		s.failed.WithLabelValues(id).Inc()
		return
	}
	s.done.WithLabelValues(id).Inc()
	s.seconds.WithLabelValues(id).Observe(e.Took.Seconds())
}
