package etcdapi

import (
	"github.com/prometheus/client_golang/prometheus"
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
