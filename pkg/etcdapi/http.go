package etcdapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
)

// HTTPEnv is what the HTTP endpoints ask of the store.
type HTTPEnv struct {
	// Read does a one-key read, serializable or linearizable.
	Read func(ctx context.Context, serializable bool) error
	// Alarms are the active ones.
	Alarms func() []*pb.AlarmMember
	// HasLeader and IsLearner are this member's view of the cluster.
	HasLeader func() bool
	IsLearner func() bool
	// ClusterVersion and StorageVersion are "3.7.0" or the like, "" when not
	// decided yet.
	ClusterVersion func() string
	StorageVersion func() string
	// ClusterID and Members answer /members on the peer address.
	ClusterID func() uint64
	Members   func() []HTTPMember
}

// HTTPMember is a member as etcd's peer endpoint shows it.
type HTTPMember struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// HTTPOptions configure the HTTP endpoints.
type HTTPOptions struct {
	Env      HTTPEnv
	Gatherer prometheus.Gatherer // what /metrics shows
	Gateway  http.Handler        // the API as JSON; nil: not served
	Health   *HealthMetrics      // counts the checks; nil: nobody does
	Log      *slog.Logger        // failed checks and refused hosts; nil: nowhere
	Pprof    bool                // --enable-pprof

	// RefuseNames says whether the gateway is closed to clients whose certificate has
	// a name: while users are asked for, that name would be expected to count, and it
	// does not. nil: it never is.
	RefuseNames func() bool

	// CORS are the origins that browsers may call from (--cors), Hosts the names
	// that plain-text requests may be addressed to (--host-whitelist); empty or
	// "*" allows all.
	CORS  []string
	Hosts []string
}

func (o *HTTPOptions) ensureDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RefuseNames == nil {
		o.RefuseNames = func() bool { return false }
	}
	if o.Health == nil {
		o.Health = NewHealthMetrics(prometheus.NewRegistry())
	}
}

// NewClientHandler is the HTTP side of the client addresses: the API as JSON,
// metrics, health, version and debugging, behind the checks for browsers.
func NewClientHandler(o HTTPOptions) http.Handler {
	o.ensureDefaults()
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/vars", getOnly(serveVars))
	o.handleCommon(mux)
	if o.Gateway != nil {
		mux.Handle(gatewayPath, o.Gateway)
	}
	return &access{mux: mux, log: o.Log, refuseNames: o.RefuseNames, cors: allowSet(o.CORS), hosts: allowSet(o.Hosts)}
}

// NewMetricsHandler is what --listen-metrics-urls serve: metrics and health as
// in etcd, and also the version and, if asked for, profiles, so that the address
// that operators can reach tells them all.
func NewMetricsHandler(o HTTPOptions) http.Handler {
	o.ensureDefaults()
	mux := http.NewServeMux()
	o.handleCommon(mux)
	return mux
}

// NewPeerHandler is what this member answers on its peer addresses as long as
// it has no peers: who it is, and how it is.
func NewPeerHandler(o HTTPOptions) http.Handler {
	o.ensureDefaults()
	mux := http.NewServeMux()
	mux.HandleFunc("/version", getOnly(o.serveVersion))
	mux.HandleFunc("/members", getOnly(o.serveMembers))
	newHealth(o).install(mux)
	return mux
}

// handleCommon installs what client and metrics addresses both serve.
func (o HTTPOptions) handleCommon(mux *http.ServeMux) {
	mux.Handle("/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("/version", getOnly(o.serveVersion))
	newHealth(o).install(mux)
	if o.Pprof {
		handlePprof(mux)
	}
}

func (o HTTPOptions) serveVersion(w http.ResponseWriter, _ *http.Request) {
	v := version.Versions{Server: version.Version, Cluster: o.Env.ClusterVersion(), Storage: o.Env.StorageVersion()}
	if v.Cluster == "" {
		v.Cluster = "not_decided"
	}
	if v.Storage == "" {
		v.Storage = "unknown"
	}
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(&v)
	if err != nil {
		panic(fmt.Sprintf("marshal versions %+v: %v", v, err))
	}
	_, _ = w.Write(b)
}

func (o HTTPOptions) serveMembers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Etcd-Cluster-ID", fmt.Sprintf("%x", o.Env.ClusterID()))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o.Env.Members())
}

func serveVars(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprint(w, "{\n")
	sep := ""
	expvar.Do(func(kv expvar.KeyValue) {
		fmt.Fprintf(w, "%s%q: %s", sep, kv.Key, kv.Value)
		sep = ",\n"
	})
	fmt.Fprint(w, "\n}\n")
}

// handlePprof names the handlers one by one: importing net/http/pprof puts them
// on http.DefaultServeMux, which nothing here serves.
func handlePprof(mux *http.ServeMux) {
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
}

// getOnly refuses every method but GET, with etcd's answer.
func getOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

// access is what stands before the client handlers: it refuses plain-text
// requests addressed to a host that is not on the list (DNS rebinding,
// CVE-2018-5702) and writes the CORS headers.
type access struct {
	mux *http.ServeMux
	log *slog.Logger

	refuseNames func() bool

	cors  map[string]bool // nil: all
	hosts map[string]bool // nil: all
}

// allowSet is nil when everything is allowed.
func allowSet(names []string) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	set := make(map[string]bool, len(names))
	for _, n := range names {
		if n == "*" || n == "" {
			return nil
		}
		set[n] = true
	}
	return set
}

// ServeHTTP implements http.Handler.
func (a *access) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.URL.Path = canonicalPath(r.URL.Path)
	if host := hostName(r); r.TLS == nil && a.hosts != nil && !a.hosts[host] {
		a.log.Warn("rejecting HTTP request to prevent DNS rebinding attacks", "host", host)
		http.Error(w, fmt.Sprintf("the Host header %q is not on the list of --host-whitelist; use TLS, or add it there", host), http.StatusMisdirectedRequest)
		return
	}
	if r.TLS != nil && strings.HasPrefix(r.URL.Path, gatewayPath) && named(r.TLS) && a.refuseNames() {
		http.Error(w, errGatewayName, http.StatusBadRequest)
		return
	}
	switch origin := r.Header.Get("Origin"); {
	case a.cors == nil:
		addCORS(w, "*")
	case a.cors[origin]:
		addCORS(w, origin)
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// errGatewayName is etcd's text.
const errGatewayName = "CommonName of client sending a request against gateway will be ignored and not used as expected"

// named says whether the client has shown a certificate with a name.
func named(t *tls.ConnectionState) bool {
	for _, chain := range t.VerifiedChains {
		if len(chain) > 0 && chain[0].Subject.CommonName != "" {
			return true
		}
	}
	return false
}

func addCORS(w http.ResponseWriter, origin string) {
	w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Add("Access-Control-Allow-Origin", origin)
	w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
}

func hostName(r *http.Request) string {
	h, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		h = r.Host
	}
	return strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")
}
