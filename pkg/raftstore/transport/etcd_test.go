package transport

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestRealEtcd: an etcd member and one of ours that take each other for peers are told that they are not, on both sides.
func TestRealEtcd(t *testing.T) {
	checkLeaks(t)
	build := exec.Command("go", "run", "./test/internal/peers/build", "etcd")
	build.Dir, build.Stderr = "../../..", os.Stderr
	bin, err := build.Output()
	if err != nil {
		t.Fatalf("build the real etcd: %v", err)
	}
	free := [2]string{"http://" + freeport.Addr(t), "http://" + freeport.Addr(t)}
	a := newMember(t, 1, func(o *Options) { o.Dial, o.DialTimeout = nil, time.Minute }) // so that a hang would be one
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	etcd := exec.Command(strings.TrimSpace(string(bin)), "--name", "etcd", "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync",
		"--listen-client-urls", free[0], "--advertise-client-urls", free[0], "--listen-peer-urls", free[1], "--initial-advertise-peer-urls", free[1],
		"--initial-cluster", "etcd="+free[1]+",shim="+a.url)
	etcd.Stdout, etcd.Stderr = log, log
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = etcd.Process.Kill()
		_ = etcd.Wait()
	}()
	await(t, "etcd at our peer port", a.told(ErrClusterMismatch.Error()))
	await(t, "our refusal in etcd's log", func() bool {
		b, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(b), "cluster ID mismatch")
	})
	a.tr.SetPeers([]Peer{{2, []string{free[1]}}})
	await(t, "us at etcd's peer port", a.told("cannot connect to peer 2: "+free[1]))
	if a.told(errDialTimeout.Error())() {
		t.Error("the attempt hung")
	}
	got, err := FetchMembers(t.Context(), []string{free[1]}, FetchOptions{})
	if err != nil || got.Cluster == 0 || !strings.Contains(string(got.JSON), free[1]) {
		t.Errorf("its members: %q of %x, %v", got.JSON, got.Cluster, err)
	}
}
