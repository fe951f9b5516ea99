package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestProcessAnswersProbesBeforeItServes: a member that waits for the others of its cluster has probes see that it lives and is not ready,
// and what it waits for.
func TestProcessAnswersProbesBeforeItServes(t *testing.T) {
	peer := freeport.Addr(t)
	p := launch(t, filepath.Join(t.TempDir(), "data"), "--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
		"--initial-cluster=test=http://"+peer+",other=http://"+freeport.Addr(t))
	for end := time.Now().Add(startTimeout); !strings.Contains(p.log(), "membership change"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not begin")
		}
	}
	if got := p.get(p.metrics, "/livez?verbose"); got != "[+]process ok\nok\n" {
		t.Errorf("/livez: %q", got)
	}
	code, body := p.status(p.metrics, "/readyz?verbose")
	if code != http.StatusServiceUnavailable || body != "[-]loading failed: waiting for a leader\n\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	code, body = p.status(p.metrics, "/health")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "LOADING: waiting for a leader") {
		t.Errorf("/health: %d %q", code, body)
	}
	if got := p.get(p.metrics, "/metrics"); !strings.Contains(got, "etcd_server_has_leader 0") {
		t.Error("/metrics does not say that there is no leader")
	}
}
