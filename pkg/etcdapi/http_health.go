package etcdapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// healthTimeout bounds the read behind /health. etcd: 5 s and two election
// timeouts.
const healthTimeout = 7 * time.Second

// healthHandler serves /health, /livez and /readyz as etcd 3.7 does. /health is one
// JSON verdict; the other two are lists of named checks, each of which also has
// a path of its own.
type healthHandler struct {
	HTTPOptions
}

// healthCheck is one named check.
type healthCheck struct {
	name string
	run  func(ctx context.Context) error
}

// healthVerdict is the body of /health.
type healthVerdict struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

func newHealth(o HTTPOptions) *healthHandler { return &healthHandler{o} }

func (h *healthHandler) install(mux *http.ServeMux) {
	serializable := healthCheck{"serializable_read", func(ctx context.Context) error { return h.Env.Read(ctx, true) }}
	linearizable := healthCheck{"linearizable_read", func(ctx context.Context) error { return h.Env.Read(ctx, false) }}
	mux.HandleFunc("/health", getOnly(h.serveHealth))
	h.installChecks(mux, "livez", serializable)
	h.installChecks(mux, "readyz",
		healthCheck{"data_corruption", h.checkCorrupt}, serializable, linearizable,
		healthCheck{"non_learner", h.checkLearner})
}

func (h *healthHandler) installChecks(mux *http.ServeMux, kind string, checks ...healthCheck) {
	root := "/" + kind
	mux.HandleFunc(root, getOnly(func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		run := slices.DeleteFunc(slices.Clone(checks), func(c healthCheck) bool { return slices.Contains(excluded, c.name) })
		if unknown := unknownChecks(excluded, checks); len(unknown) > 0 {
			h.Log.Warn("some health checks cannot be excluded", "missing-health-checks", strings.Join(unknown, ","))
		}
		h.serveChecks(w, r, kind, run)
	}))
	for _, c := range checks {
		mux.HandleFunc(root+"/"+c.name, getOnly(func(w http.ResponseWriter, r *http.Request) {
			h.serveChecks(w, r, kind, []healthCheck{c})
		}))
	}
}

// unknownChecks are excluded by name but no checks; they do not fail the
// request, so that a probe can name checks of several versions.
func unknownChecks(excluded []string, checks []healthCheck) []string {
	var unknown []string
	for _, e := range excluded {
		if e != "" && !slices.ContainsFunc(checks, func(c healthCheck) bool { return c.name == e }) {
			unknown = append(unknown, fmt.Sprintf("%q", e))
		}
	}
	return unknown
}

// serveChecks runs the checks and says "ok", with ?verbose after a line for
// each; or all the lines and 503.
func (h *healthHandler) serveChecks(w http.ResponseWriter, r *http.Request, kind string, checks []healthCheck) {
	var lines strings.Builder
	failed := false
	for _, c := range checks {
		err := c.run(r.Context())
		h.Health.check(kind, c.name, err == nil)
		if err != nil {
			failed = true
			fmt.Fprintf(&lines, "[-]%s failed: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&lines, "[+]%s ok\n", c.name)
	}
	if failed {
		http.Error(w, lines.String(), http.StatusServiceUnavailable)
		h.Log.Error("Health check error", "path", r.URL.Path, "reason", lines.String(), "status-code", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, lines.String())
	}
	fmt.Fprint(w, "ok\n")
}

func (h *healthHandler) serveHealth(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	reason := h.unhealthy(r.Context(), q["exclude"], q.Get("serializable") == "true")
	v := healthVerdict{Health: "true", Reason: reason}
	if reason != "" {
		v.Health = "false"
	}
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal health %+v: %v", v, err))
	}
	h.Health.verdict(reason == "")
	if reason != "" {
		http.Error(w, string(body), http.StatusServiceUnavailable)
		h.Log.Warn("/health error", "output", string(body), "status-code", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}

// unhealthy is the first reason why this member is not healthy, "" for none.
func (h *healthHandler) unhealthy(ctx context.Context, excluded []string, serializable bool) string {
	for _, a := range h.Env.Alarms() {
		if slices.Contains(excluded, a.GetAlarm().String()) {
			continue
		}
		switch a.GetAlarm() {
		case pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT:
			return "ALARM " + a.GetAlarm().String()
		default:
			return "ALARM UNKNOWN"
		}
	}
	if !serializable && !h.Env.HasLeader() {
		return "RAFT NO LEADER"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if err := h.Env.Read(ctx, serializable); err != nil {
		return fmt.Sprintf("RANGE ERROR:%s", err)
	}
	return ""
}

func (h *healthHandler) checkCorrupt(context.Context) error {
	for _, a := range h.Env.Alarms() {
		if a.GetAlarm() == pb.AlarmType_CORRUPT {
			return fmt.Errorf("alarm activated: %s", a.GetAlarm())
		}
	}
	return nil
}

func (h *healthHandler) checkLearner(context.Context) error {
	if h.Env.IsLearner() {
		return errors.New("not supported for learner")
	}
	return nil
}
