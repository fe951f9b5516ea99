package discovery

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/internal/freeport"
)

// program is the path of the real etcd or of shim, built if it is missing.
func program(t *testing.T, name string) string {
	t.Helper()
	args := []string{"run", "./test/internal/peers/build", name}
	shim := filepath.Join(t.TempDir(), "shim")
	if name == "shim" {
		args = []string{"build", "-o", shim, "./cmd/shim"}
	}
	build := exec.Command("go", args...)
	build.Dir = "../.."
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	if name == "shim" {
		return shim
	}
	return strings.TrimSpace(string(out))
}

// service is a running etcd or shim.
type service struct {
	t    *testing.T
	addr string
	kv   pb.KVClient
	auth pb.AuthClient
	stop func()
	args []string
}

// startService runs a server until the test ends.
func startService(t *testing.T, name string) *service {
	t.Helper()
	s := &service{t: t, addr: freeport.Addr(t)}
	peer := freeport.Addr(t)
	s.args = []string{program(t, name), "--data-dir", filepath.Join(t.TempDir(), "data"), "--log-level", "warn",
		"--listen-client-urls", "http://" + s.addr, "--advertise-client-urls", "http://" + s.addr,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer, "--initial-cluster", "default=http://" + peer}
	s.start()
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.kv, s.auth = pb.NewKVClient(conn), pb.NewAuthClient(conn)
	s.put("ready", "")
	return s
}

func (s *service) start() {
	cmd := exec.Command(s.args[0], s.args[1:]...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("the service said: %s", log.String())
		}
	})
}

func (s *service) put(key, value string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}, grpc.WaitForReady(true)); err != nil {
		s.t.Fatalf("put %s: %v", key, err)
	}
}

func (s *service) options(token string, onEvent func(Event)) Options {
	return Options{Endpoints: []string{"http://" + s.addr}, Token: token, OnEvent: onEvent,
		After: func(time.Duration) <-chan time.Time { return time.After(time.Millisecond) }}
}

// result is what one joiner got.
type result struct {
	cluster string
	err     error
}

// joiner starts a Join and returns once the member is registered, or has failed. In a full cluster nobody gets so far.
func joiner(t *testing.T, s *service, token string, n int) chan result {
	t.Helper()
	registered, done := make(chan struct{}), make(chan result, 1)
	o := s.options(token, func(e Event) {
		if _, ok := e.(Registered); ok {
			close(registered)
		}
	})
	go func() {
		cluster, err := Join(t.Context(), o, memberID(n), self(n))
		done <- result{cluster, err}
	}()
	select {
	case <-registered:
	case r := <-done:
		done <- r
	}
	return done
}

func self(n int) string { return fmt.Sprintf("m%d=http://10.0.0.%d:2380", n, n) }
