package robustness

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/internal/freeport"
)

// binary is the program under test, built once by TestMain.
var binary string

// programFlag takes another program: what an etcd fails as well, is etcd's way or the test's fault.
var programFlag = flag.String("program", "", "the program under test, an etcd for instance; default shim as it is here")

func TestMain(m *testing.M) {
	flag.Parse()
	if signal.Ignored(os.Interrupt) { // by who runs the tests: members would inherit that
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	os.Exit(func() int {
		if *programFlag != "" {
			binary = *programFlag
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "shim-robustness")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "shim")
		if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/shim").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// patience bounds each wait; it is reached only when a test fails.
const patience = 60 * time.Second

// server is a shim process on loopback, with addresses that stay the same when it is started again.
type server struct {
	process
	dir    string
	scheme string
	client string // "127.0.0.1:port"
	peer   string
	args   []string
}

// newServer starts nothing.
func newServer(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{process: process{t: t}, dir: dir, scheme: "http", client: freeport.Addr(t), peer: freeport.Addr(t), args: args}
	t.Cleanup(func() { s.cleanup("shim") })
	return s
}

// startServer starts a server and waits until it is ready.
func startServer(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := newServer(t, dir, args...)
	s.start()
	return s
}

// launch starts the process and does not wait.
func (s *server) launch() {
	s.t.Helper()
	args := append([]string{"--name=test", "--data-dir=" + s.dir,
		"--listen-client-urls=" + s.scheme + "://" + s.client, "--advertise-client-urls=" + s.scheme + "://" + s.client,
		"--listen-peer-urls=http://" + s.peer}, s.args...)
	s.run(exec.Command(binary, args...))
}

func (s *server) start() {
	s.t.Helper()
	s.launch()
	s.awaitReady()
}

// dial makes a connection that comes back at once after a restart.
func (s *server) dial() *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.client, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
			Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// metric is the value of one line of /metrics.
func (s *server) metric(name string) float64 {
	s.t.Helper()
	resp, err := http.Get("http://" + s.client + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if rest, ok := strings.CutPrefix(scan.Text(), name+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
}

// await polls a condition that no event tells of, of another process.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// surely makes a call until it succeeds. A member of several may lose its leader at any time, which is told by Unavailable.
func surely(t *testing.T, what string, call func(context.Context) error) {
	t.Helper()
	await(t, what, func() bool {
		ctx, cancel := patiently()
		defer cancel()
		err := call(ctx)
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatalf("%s: %v", what, err)
		}
		return err == nil
	})
}
