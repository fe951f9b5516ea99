package etcdapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestLoadingHandler: while a member reads its data it lives, is not ready, and says how far it has come.
func TestLoadingHandler(t *testing.T) {
	progress := ""
	h := NewLoadingHandler(HTTPOptions{Gatherer: prometheus.NewRegistry()}, func() string { return progress })
	progress = "40 % of 1000 rows"
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/livez", "ok\n", http.StatusOK},
		{"/livez?verbose", "[+]process ok\nok\n", http.StatusOK},
		{"/livez?exclude=serializable_read", "ok\n", http.StatusOK},
		{"/readyz", "[-]loading failed: 40 % of 1000 rows\n", http.StatusServiceUnavailable},
		{"/readyz?verbose", "[-]loading failed: 40 % of 1000 rows\n", http.StatusServiceUnavailable},
		{"/readyz/loading", "[-]loading failed: 40 % of 1000 rows\n", http.StatusServiceUnavailable},
		{"/health", `{"health":"false","reason":"LOADING: 40 % of 1000 rows"}` + "\n", http.StatusServiceUnavailable},
		{"/version", `{"etcdserver":"3.7.3","etcdcluster":"not_decided","storage":"unknown"}`, http.StatusOK},
		{"/metrics", "", http.StatusOK},
		{"/nothing", "404 page not found\n", http.StatusNotFound},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if got := w.Body.String(); w.Code != c.status || strings.TrimSpace(got) != strings.TrimSpace(c.body) {
			t.Errorf("%s: %d %q, want %d %q", c.path, w.Code, got, c.status, c.body)
		}
	}
}
