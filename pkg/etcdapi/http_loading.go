package etcdapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewLoadingHandler is what --listen-metrics-urls serve while a member reads its
// data: it lives, and is not ready. progress says how far it has come. Of o, Env
// is not asked. (etcd does not listen until it has read its data.)
func NewLoadingHandler(o HTTPOptions, progress func() string) http.Handler {
	o.ensureDefaults()
	o.Env.ClusterVersion = func() string { return "" }
	o.Env.StorageVersion = func() string { return "" }
	h, mux := newHealth(o), http.NewServeMux()
	h.installChecks(mux, "livez", healthCheck{"process", func(context.Context) error { return nil }})
	h.installChecks(mux, "readyz", healthCheck{"loading", func(context.Context) error { return errors.New(progress()) }})
	mux.HandleFunc("/health", getOnly(func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.Marshal(healthVerdict{Health: "false", Reason: "LOADING: " + progress()})
		if err != nil {
			panic(err)
		}
		o.Health.verdict(false)
		http.Error(w, string(body), http.StatusServiceUnavailable)
	}))
	mux.HandleFunc("/version", getOnly(o.serveVersion))
	mux.Handle("/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	if o.Pprof {
		handlePprof(mux)
	}
	return mux
}
