package raftstore

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestEtcdStartsFromBackup: there is a way back. Real etcd serves what a backup holds.
func TestEtcdStartsFromBackup(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	fill(t, s)
	etcdStarts(t, s)
}

// etcdStarts lets etcd start from a backup of s that is made now.
func etcdStarts(t *testing.T, s *Store) {
	etcd, etcdctl, etcdutl := peer(t, "etcd"), peer(t, "etcdctl"), peer(t, "etcdutl")
	restored := filepath.Join(t.TempDir(), "restored")
	client, peerURL := "http://"+freeport.Addr(t), "http://"+freeport.Addr(t)
	run(t, nil, etcdutl, "snapshot", "restore", backupFile(t, s), "--data-dir", restored, "--skip-hash-check",
		"--initial-cluster", "default="+peerURL, "--initial-advertise-peer-urls", peerURL)

	var log strings.Builder
	cmd := exec.Command(etcd, "--data-dir", restored, "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "default="+peerURL, "--log-level", "warn")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("etcd said: %s", log.String())
		}
	}()
	var got struct {
		Header struct{ Revision int64 }
		Count  int64
	}
	// The first answer comes once etcd serves; etcdctl retries until its timeout.
	run(t, nil, etcdctl, "--endpoints", client, "--command-timeout=2m", "--dial-timeout=2m", "endpoint", "health")
	run(t, &got, etcdctl, "--endpoints", client, "--command-timeout=2m", "get", "/registry", "--prefix", "--keys-only", "-w", "json")
	want, err := s.View().Range(&pb.RangeRequest{Key: []byte("/registry"), RangeEnd: []byte("/registrz"), CountOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got.Count != want.Count || got.Header.Revision != int64(s.View().Revision()) {
		t.Errorf("etcd has %+v, the store %d keys at revision %d", got, want.Count, s.View().Revision())
	}
	var leases struct{ Leases []struct{ ID int64 } }
	run(t, &leases, etcdctl, "--endpoints", client, "--command-timeout=2m", "lease", "list", "-w", "json")
	if len(leases.Leases) != 1 || leases.Leases[0].ID != 77 {
		t.Errorf("etcd has leases %+v", leases)
	}
}
