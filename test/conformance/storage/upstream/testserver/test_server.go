package testserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

const (
	serverEnv   = "SHIM_CONFORMANCE_SERVER" // path of the server's binary
	readyLine   = "ready to serve client requests"
	startMax    = 60 * time.Second
	stopMax     = 30 * time.Second
	outputLines = 40 // of the server's log, shown when it fails
	// Ports come from below the range which Linux gives to outgoing
	// connections, so that none of those takes one before the server does.
	portMin, portMax = 12000, 32000
)

// NewTestConfig returns a configuration that RunEtcd turns into flags. Tests
// change fields of it: TLS, progress interval, request size, quota.
func NewTestConfig(t testing.TB) *embed.Config {
	cfg := embed.NewConfig()
	cfg.UnsafeNoFsync = true
	client, peer := freeURL(t), freeURL(t)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.Dir = t.TempDir()
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// RunEtcd starts a server process with the flags that cfg (NewTestConfig when
// nil) asks for and returns a client of it. The end of the test ends both.
func RunEtcd(t testing.TB, cfg *embed.Config) *kubernetes.Client {
	t.Helper()
	if cfg == nil {
		cfg = NewTestConfig(t)
	}
	startServer(t, flags(cfg))
	tlsConfig, err := cfg.ClientTLSInfo.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	var endpoints []string
	for _, u := range cfg.AdvertiseClientUrls {
		endpoints = append(endpoints, u.String())
	}
	client, err := kubernetes.New(clientv3.Config{
		TLS:         tlsConfig,
		Endpoints:   endpoints,
		DialTimeout: 10 * time.Second,
		Logger:      zaptest.NewLogger(t, zaptest.Level(zapcore.ErrorLevel)).Named("etcd-client"),
	})
	if err != nil {
		t.Fatal(err)
	}
	// The suite counts requests through these two recorders.
	recorder := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV = storagetesting.NewKVRecorder(client.KV, recorder)
	client.Kubernetes = recorder
	return client
}

// flags spells out every field that a test of the suite sets.
func flags(cfg *embed.Config) []string {
	args := []string{
		"--name=" + cfg.Name,
		"--data-dir=" + cfg.Dir,
		"--listen-client-urls=" + join(cfg.ListenClientUrls),
		"--advertise-client-urls=" + join(cfg.AdvertiseClientUrls),
		"--listen-peer-urls=" + join(cfg.ListenPeerUrls),
		"--initial-advertise-peer-urls=" + join(cfg.AdvertisePeerUrls),
		"--initial-cluster=" + cfg.InitialCluster,
		"--unsafe-no-fsync=" + strconv.FormatBool(cfg.UnsafeNoFsync),
		"--max-request-bytes=" + strconv.FormatUint(uint64(cfg.MaxRequestBytes), 10),
		"--quota-backend-bytes=" + strconv.FormatInt(cfg.QuotaBackendBytes, 10),
	}
	if cfg.WatchProgressNotifyInterval > 0 {
		args = append(args, "--watch-progress-notify-interval="+cfg.WatchProgressNotifyInterval.String())
	}
	if tls := cfg.ClientTLSInfo; !tls.Empty() {
		args = append(args, "--cert-file="+tls.CertFile, "--key-file="+tls.KeyFile)
		if tls.TrustedCAFile != "" {
			args = append(args, "--trusted-ca-file="+tls.TrustedCAFile)
		}
		if tls.ClientCertAuth {
			args = append(args, "--client-cert-auth")
		}
	}
	return args
}

func join(urls []url.URL) string {
	var all []string
	for _, u := range urls {
		all = append(all, u.String())
	}
	return strings.Join(all, ",")
}

// server is one running process.
type server struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed when the server says so
	done  chan struct{} // closed once the process is gone; err and tail are final then

	mu   sync.Mutex
	tail []string // guarded by mu: the last lines of its log
	err  error    // written before done is closed
}

func startServer(t testing.TB, args []string) {
	t.Helper()
	path := os.Getenv(serverEnv)
	if path == "" {
		t.Fatalf("%s does not name a server", serverEnv)
	}
	s := &server{cmd: exec.Command(path, args...), ready: make(chan struct{}), done: make(chan struct{})}
	// A test binary that is killed takes its servers with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	go s.watch(stderr)
	t.Cleanup(func() { s.stop(t) })
	timer := time.NewTimer(startMax)
	defer timer.Stop()
	select {
	case <-s.ready:
	case <-s.done:
		t.Fatalf("%s ended before it was ready: %v\n%s", path, s.err, s.log())
	case <-timer.C:
		t.Fatalf("%s is not ready after %v\n%s", path, startMax, s.log())
	}
}

// watch reads the log until the process ends, then collects its status.
func (s *server) watch(stderr io.Reader) {
	r := bufio.NewReader(stderr)
	isReady := false
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			s.mu.Lock()
			s.tail = append(s.tail, strings.TrimRight(line, "\n"))
			if len(s.tail) > outputLines {
				s.tail = s.tail[1:]
			}
			s.mu.Unlock()
		}
		if !isReady && strings.Contains(line, readyLine) {
			isReady = true
			close(s.ready)
		}
		if err != nil {
			break
		}
	}
	s.err = s.cmd.Wait()
	close(s.done)
}

func (s *server) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.tail, "\n")
}

func (s *server) stop(t testing.TB) {
	select {
	case <-s.done:
		t.Errorf("server ended during the test: %v\n%s", s.err, s.log())
		return
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop server: %v", err)
	}
	timer := time.NewTimer(stopMax)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		_ = s.cmd.Process.Kill()
		<-s.done
		t.Errorf("server ignored SIGTERM for %v\n%s", stopMax, s.log())
	}
}

// freeURL picks a port at random and makes sure that nobody listens on it.
func freeURL(t testing.TB) url.URL {
	for range 100 {
		port := portMin + rand.IntN(portMax-portMin)
		host := net.JoinHostPort("localhost", strconv.Itoa(port))
		l, err := net.Listen("tcp", host)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return url.URL{Scheme: "http", Host: host}
	}
	t.Fatal(fmt.Errorf("no free port between %d and %d", portMin, portMax))
	return url.URL{}
}
