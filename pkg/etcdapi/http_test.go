package etcdapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// httpTest is a store as the HTTP endpoints see it, in any state.
type httpTest struct {
	alarms     []*pb.AlarmMember
	noLeader   bool
	learner    bool
	readErr    error // of linearizable reads
	localErr   error // of serializable reads
	undecided  bool
	registry   *prometheus.Registry
	o          HTTPOptions
	serialized []bool // the reads that were asked for
}

func newHTTPTest() *httpTest {
	h := &httpTest{registry: prometheus.NewRegistry()}
	version := func() string {
		if h.undecided {
			return ""
		}
		return "3.7.0"
	}
	h.o = HTTPOptions{
		Env: HTTPEnv{
			Read: func(_ context.Context, serializable bool) error {
				h.serialized = append(h.serialized, serializable)
				if serializable {
					return h.localErr
				}
				return h.readErr
			},
			Alarms:         func() []*pb.AlarmMember { return h.alarms },
			HasLeader:      func() bool { return !h.noLeader },
			IsLearner:      func() bool { return h.learner },
			ClusterVersion: version, StorageVersion: version,
			ClusterID: func() uint64 { return 0xabc },
			Members: func() []HTTPMember {
				return []HTTPMember{{ID: 1, PeerURLs: []string{"http://p:1"}, Name: "m", ClientURLs: []string{"http://c:1"}}}
			},
		},
		Gatherer: h.registry,
		Health:   NewHealthMetrics(h.registry),
	}
	return h
}

// ask is one request; it answers status and body.
func ask(handler http.Handler, method, target string, header ...string) (int, string) {
	w := recorded(handler, method, target, header...)
	return w.Code, w.Body.String()
}

func recorded(handler http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func alarm(a pb.AlarmType) *pb.AlarmMember { return &pb.AlarmMember{MemberID: 1, Alarm: a} }

// TestHTTPHealth has the answers of etcd 3.7.3 in each state.
func TestHTTPHealth(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name   string
		set    func(*httpTest)
		target string
		code   int
		body   string
	}{
		{"healthy", func(*httpTest) {}, "/health", 200, `{"health":"true","reason":""}`},
		{"no space", func(h *httpTest) { h.alarms = []*pb.AlarmMember{alarm(pb.AlarmType_NOSPACE)} }, "/health", 503, `{"health":"false","reason":"ALARM NOSPACE"}` + "\n"},
		{"corrupt", func(h *httpTest) { h.alarms = []*pb.AlarmMember{alarm(pb.AlarmType_CORRUPT)} }, "/health", 503, `{"health":"false","reason":"ALARM CORRUPT"}` + "\n"},
		{"alarm excluded", func(h *httpTest) { h.alarms = []*pb.AlarmMember{alarm(pb.AlarmType_NOSPACE)} }, "/health?exclude=NOSPACE", 200, `{"health":"true","reason":""}`},
		{"other alarm excluded", func(h *httpTest) { h.alarms = []*pb.AlarmMember{alarm(pb.AlarmType_CORRUPT)} }, "/health?exclude=NOSPACE", 503, `{"health":"false","reason":"ALARM CORRUPT"}` + "\n"},
		{"no leader", func(h *httpTest) { h.noLeader = true }, "/health", 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
		{"no leader, local", func(h *httpTest) { h.noLeader, h.readErr = true, broken }, "/health?serializable=true", 200, `{"health":"true","reason":""}`},
		{"read fails", func(h *httpTest) { h.readErr = broken }, "/health", 503, `{"health":"false","reason":"RANGE ERROR:broken"}` + "\n"},

		{"live", func(h *httpTest) { h.readErr, h.learner = broken, true }, "/livez", 200, "ok\n"},
		{"live, verbose", func(*httpTest) {}, "/livez?verbose", 200, "[+]serializable_read ok\nok\n"},
		{"not live", func(h *httpTest) { h.localErr = broken }, "/livez", 503, "[-]serializable_read failed: broken\n\n"},
		{"live, one check", func(*httpTest) {}, "/livez/serializable_read", 200, "ok\n"},
		{"live, unknown check", func(*httpTest) {}, "/livez/nosuch", 404, "404 page not found\n"},
		{"ready, verbose", func(h *httpTest) { h.alarms = []*pb.AlarmMember{alarm(pb.AlarmType_NOSPACE)} }, "/readyz?verbose", 200,
			"[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"},
		{"not ready", func(h *httpTest) {
			h.alarms, h.readErr, h.learner = []*pb.AlarmMember{alarm(pb.AlarmType_CORRUPT)}, broken, true
		}, "/readyz", 503, "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[-]linearizable_read failed: broken\n[-]non_learner failed: not supported for learner\n\n"},
		{"ready without a check", func(h *httpTest) { h.readErr = broken }, "/readyz?exclude=linearizable_read&exclude=nosuch", 200, "ok\n"},
		{"ready, one check", func(h *httpTest) { h.readErr = broken }, "/readyz/data_corruption", 200, "ok\n"},
		{"ready, one check that fails", func(h *httpTest) { h.readErr = broken }, "/readyz/linearizable_read", 503, "[-]linearizable_read failed: broken\n\n"},
	} {
		for _, handler := range []func(HTTPOptions) http.Handler{NewClientHandler, NewMetricsHandler, NewPeerHandler} {
			h := newHTTPTest()
			tc.set(h)
			if code, body := ask(handler(h.o), "GET", tc.target); code != tc.code || body != tc.body {
				t.Errorf("%s: %d %q, want %d %q", tc.name, code, body, tc.code, tc.body)
			}
		}
	}
}

func TestHTTPMethods(t *testing.T) {
	h := NewClientHandler(newHTTPTest().o)
	for _, path := range []string{"/health", "/livez", "/readyz", "/readyz/non_learner", "/version", "/debug/vars"} {
		w := recorded(h, "POST", path)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
			t.Errorf("POST %s: %d, allow %q", path, w.Code, w.Header().Get("Allow"))
		}
	}
}

// TestHTTPPlaces: what is served where.
func TestHTTPPlaces(t *testing.T) {
	plain, pprof := newHTTPTest(), newHTTPTest()
	pprof.o.Pprof = true
	for _, tc := range []struct {
		where   string
		handler http.Handler
		found   string
		missing string
	}{
		{"client", NewClientHandler(plain.o), "/metrics /version /debug/vars", "/members /debug/pprof/ /debug/pprof/heap /nosuch"},
		{"client with pprof", NewClientHandler(pprof.o), "/debug/pprof/ /debug/pprof/heap /debug/pprof/cmdline", "/nosuch"},
		{"metrics", NewMetricsHandler(plain.o), "/metrics /version", "/debug/vars /debug/pprof/ /members"},
		{"metrics with pprof", NewMetricsHandler(pprof.o), "/metrics /version /debug/pprof/", "/debug/vars /members"},
		{"peer", NewPeerHandler(pprof.o), "/version /members", "/metrics /debug/vars /debug/pprof/"},
	} {
		for _, path := range strings.Fields(tc.found) {
			if code, _ := ask(tc.handler, "GET", path); code != 200 {
				t.Errorf("%s: %s: %d", tc.where, path, code)
			}
		}
		for _, path := range strings.Fields(tc.missing) {
			if code, _ := ask(tc.handler, "GET", path); code != 404 {
				t.Errorf("%s: %s: %d", tc.where, path, code)
			}
		}
	}
}

func TestHTTPVersionAndMembers(t *testing.T) {
	h := newHTTPTest()
	if _, body := ask(NewClientHandler(h.o), "GET", "/version"); body != `{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}` {
		t.Error(body)
	}
	h.undecided = true
	if _, body := ask(NewPeerHandler(h.o), "GET", "/version"); body != `{"etcdserver":"3.7.3","etcdcluster":"not_decided","storage":"unknown"}` {
		t.Error(body)
	}
	w := recorded(NewPeerHandler(h.o), "GET", "/members")
	if w.Body.String() != `[{"id":1,"peerURLs":["http://p:1"],"name":"m","clientURLs":["http://c:1"]}]`+"\n" || w.Header().Get("X-Etcd-Cluster-ID") != "abc" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
}

func TestHTTPHealthIsCounted(t *testing.T) {
	h := newHTTPTest()
	handler := NewClientHandler(h.o)
	ask(handler, "GET", "/health")
	ask(handler, "GET", "/readyz")
	h.readErr = errors.New("broken")
	ask(handler, "GET", "/health")
	ask(handler, "GET", "/readyz")
	_, body := ask(handler, "GET", "/metrics")
	for _, want := range []string{
		"etcd_server_health_success 1", "etcd_server_health_failures 1",
		`etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0`,
		`etcd_server_healthcheck{name="non_learner",type="readyz"} 1`,
		`etcd_server_healthchecks_total{name="linearizable_read",status="error",type="readyz"} 1`,
		`etcd_server_healthchecks_total{name="linearizable_read",status="success",type="readyz"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestHTTPAccess(t *testing.T) {
	h := newHTTPTest()
	open := NewClientHandler(h.o)
	if w := recorded(open, "GET", "http://anything/version", "Origin", "http://a"); w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("open: %d %v", w.Code, w.Header())
	}
	h.o.CORS, h.o.Hosts = []string{"http://a:1"}, []string{"good", "127.0.0.1", "::1"}
	strict := NewClientHandler(h.o)
	for _, tc := range []struct {
		target, origin string
		code           int
		allowed        string
	}{
		{"http://good:2379/version", "http://a:1", 200, "http://a:1"},
		{"http://good/version", "http://b:1", 200, ""},
		{"http://127.0.0.1:1/version", "", 200, ""},
		{"http://[::1]:1/version", "", 200, ""},
		{"http://evil:2379/version", "http://a:1", http.StatusMisdirectedRequest, ""},
		{"https://evil:2379/version", "http://a:1", 200, "http://a:1"}, // with TLS the certificate decides
	} {
		w := recorded(strict, "GET", tc.target, "Origin", tc.origin)
		if w.Code != tc.code || w.Header().Get("Access-Control-Allow-Origin") != tc.allowed {
			t.Errorf("%s from %s: %d, allowed %q", tc.target, tc.origin, w.Code, w.Header().Get("Access-Control-Allow-Origin"))
		}
	}
	if code, body := ask(strict, "OPTIONS", "http://good/version"); code != 200 || body != "" {
		t.Errorf("preflight: %d %q", code, body)
	}
}
