package watchcache

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetrics: the names, and one series per resource even when several prefixes
// are one resource or none.
func TestMetrics(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.hub.NewStream()
	defer s.Close()
	for _, k := range []string{"/registry/pods/", "/registry/pods/ns/", "/calico/resources/", "/cilium/state/", "/registry/"} {
		s.Create(CreateRequest{Key: []byte(k), RangeEnd: []byte(k[:len(k)-1] + "0")})
		mustNext(t, s)
	}
	w.apply(putReq("/registry/pods/ns/a", "1"))
	for range 3 {
		if b := mustNext(t, s); len(b.Events) != 1 {
			t.Fatalf("got %+v", b)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.hub.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			if m.GetLabel() != nil {
				name += "{" + m.GetLabel()[0].GetValue() + "}"
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"etcd_debugging_mvcc_watch_stream_total":   1,
		"etcd_debugging_mvcc_watcher_total":        5,
		"etcd_debugging_mvcc_slow_watcher_total":   0,
		"etcd_debugging_mvcc_events_total":         2,
		"etcd_debugging_mvcc_pending_events_total": 1,
		"shim_watch_window_events":                 1,
		"shim_watch_window_start_revision":         2,
		"shim_resource_watchers{pods}":             2,
		"shim_resource_watchers{}":                 3,
		"shim_resource_watched_events_total{pods}": 1,
		"shim_resource_watched_events_total{}":     0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (%v), want %v", name, v, ok, want)
		}
	}
}
