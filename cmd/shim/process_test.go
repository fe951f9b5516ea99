package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/internal/freeport"
)

// binary is the program under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	// What runs the tests may ignore signals, and children inherit that unless they are handled here.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "shim-test")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "shim")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// startTimeout bounds waiting for the process, and what a test has it do; it is
// reached only when a test fails, also where a sync takes a second.
const startTimeout = 3 * time.Minute

// process is a running shim.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	client  string // "127.0.0.1:port"
	metrics string
	peer    string

	mu    sync.Mutex
	lines []string
	ready chan struct{} // closed when it says that it is ready
	ended chan struct{} // closed when it ended, after err is set
	err   error
}

// launch starts shim on the data directory; it does not wait.
func launch(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	return launchBy(t, nil, dir, args...)
}

// launchBy is launch by way of a program, which gets shim and its flags as arguments.
func launchBy(t testing.TB, program []string, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, client: freeport.Addr(t), metrics: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
	args = append([]string{
		"--name=test", "--data-dir=" + dir,
		"--listen-client-urls=http://" + p.client, "--advertise-client-urls=http://" + p.client,
		"--listen-peer-urls=http://" + p.peer, "--listen-metrics-urls=http://" + p.metrics,
	}, args...)
	command := append(append(slices.Clone(program), binary), args...)
	p.exec(command[0], command[1:]...)
	return p
}

func (p *process) run(args ...string) {
	p.t.Helper()
	p.exec(binary, args...)
}

// exec runs shim by way of another program.
func (p *process) exec(name string, args ...string) {
	p.t.Helper()
	p.cmd = exec.Command(name, args...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go p.read(stderr)
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if p.t.Failed() {
			p.t.Logf("log of shim:\n%s", p.log())
		}
	})
}

func (p *process) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		p.mu.Unlock()
		var line struct{ Msg string }
		if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "ready to serve client requests" {
			close(p.ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// start is launch, and waits until shim is ready.
func start(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	p := launch(t, dir, args...)
	p.await()
	return p
}

// await waits until shim is ready.
func (p *process) await() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.ended:
		p.t.Fatalf("ended before it was ready: %v", p.err)
	case <-time.After(startTimeout):
		p.t.Fatal("not ready in time")
	}
}

// stop sends a signal and answers the exit code: 0 as well for the death of that
// signal if shim has chosen it, as etcd does; -1 for another one's.
func (p *process) stop(sig os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	return p.waitAfter(sig)
}

// waitAfter waits for the end that a signal has been sent for.
func (p *process) waitAfter(sig os.Signal) int {
	p.t.Helper()
	code := p.wait()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && sig != syscall.SIGKILL && status.Signaled() && status.Signal() == sig && strings.Contains(p.log(), "closed etcd server") {
		return 0
	}
	return code
}

func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(startTimeout):
		p.t.Fatal("did not end in time")
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) dial() *clientv3.Client {
	p.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.client}, DialTimeout: startTimeout})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// get asks for a page that must be there.
func (p *process) get(addr, path string) string {
	p.t.Helper()
	code, body := p.status(addr, path)
	if code != http.StatusOK {
		p.t.Fatalf("%s: %d %q", path, code, body)
	}
	return body
}

func (p *process) status(addr, path string) (int, string) {
	p.t.Helper()
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestProcess is a member's life: start, write, stop, start again.
func TestProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c := p.dial()
	if _, err := c.Put(ctx, "/registry/pods/default/a", "one"); err != nil {
		t.Fatal(err)
	}
	watch := c.Watch(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithRev(1))
	if got := <-watch; len(got.Events) != 1 || string(got.Events[0].Kv.Value) != "one" {
		t.Fatalf("watched %+v", got)
	}
	p.checkHTTP()

	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	again := start(t, dir)
	got, err := again.dial().Get(ctx, "/registry/pods/default/a")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "one" {
		t.Fatalf("after the restart: %+v, %v", got, err)
	}
	if out := again.get(again.metrics, "/metrics"); !strings.Contains(out, `shim_resource_objects{resource="pods"} 1`) {
		t.Errorf("objects are not counted after the restart:\n%s", grep(out, "shim_resource"))
	}
	if code := again.stop(os.Interrupt); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}

// checkHTTP asks every kind of address for what it serves.
func (p *process) checkHTTP() {
	t := p.t
	t.Helper()
	for _, addr := range []string{p.client, p.metrics, p.peer} {
		if got := p.get(addr, "/health"); got != `{"health":"true","reason":""}` {
			t.Errorf("/health: %s", got)
		}
	}
	if got := p.get(p.metrics, "/readyz?verbose"); got != "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n" {
		t.Errorf("/readyz: %s", got)
	}
	if got := p.get(p.client, "/version"); !strings.HasPrefix(got, `{"etcdserver":"3.7.3","etcdcluster":"3.7`) {
		t.Errorf("/version: %s", got)
	}
	if got := p.get(p.peer, "/members"); !strings.Contains(got, `"name":"test","clientURLs":["http://`+p.client+`"]`) {
		t.Errorf("/members: %s", got)
	}
	if got := p.get(p.client, "/debug/vars"); !strings.Contains(got, `"cmdline"`) {
		t.Errorf("/debug/vars: %s", got)
	}
	out := p.get(p.metrics, "/metrics")
	for _, want := range etcdMetrics {
		if !strings.Contains(out, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	for _, want := range []string{
		"etcd_server_has_leader 1", "etcd_server_is_leader 1", `etcd_server_version{server_version="3.7.3"} 1`, "etcd_debugging_mvcc_current_revision 2",
		`shim_resource_objects{resource="pods"} 1`, `shim_resource_writes_total{kind="create",resource="pods"} 1`, `shim_resource_watchers{resource="pods"} 1`,
	} {
		if !strings.Contains(out, "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// etcdMetrics are the names that etcd's dashboards and alerts use.
var etcdMetrics = []string{
	"etcd_server_has_leader", "etcd_server_leader_changes_seen_total", "etcd_server_is_leader", "etcd_server_id",
	"etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "etcd_server_proposals_pending", "etcd_server_proposals_failed_total",
	"etcd_server_version", "etcd_server_go_version", "etcd_cluster_version", "etcd_server_quota_backend_bytes",
	"etcd_server_health_success", "etcd_server_health_failures",
	"etcd_disk_wal_fsync_duration_seconds_bucket", "etcd_disk_backend_commit_duration_seconds_bucket",
	"etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
	"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_mvcc_slow_watcher_total",
	"etcd_debugging_mvcc_events_total", "etcd_debugging_mvcc_pending_events_total", "etcd_debugging_mvcc_compact_revision",
	"etcd_debugging_lease_granted_total", "etcd_mvcc_put_total", "etcd_mvcc_txn_total", "etcd_mvcc_delete_total",
	"etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total",
	"grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_sent_total", "grpc_server_msg_received_total",
	"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds", "process_start_time_seconds",
	"shim_connections", "shim_connections_limit", "shim_build_info", "go_goroutines", "go_memstats_alloc_bytes", "os_fd_used", "os_fd_limit",
}

func grep(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// TestProcessKill: what was acknowledged survives kill -9 in the middle of
// writing.
func TestProcessKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	acknowledged := 0
	for round := range 3 {
		p := start(t, dir)
		c := p.dial()
		got, err := c.Get(ctx, "n/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || int(got.Count) < acknowledged || int(got.Count) > acknowledged+1 {
			t.Fatalf("round %d: %d keys, %d were acknowledged (%v)", round, got.Count, acknowledged, err)
		}
		acknowledged = int(got.Count)
		killed := make(chan struct{})
		puts, endPuts := context.WithCancel(ctx)
		defer endPuts()
		for i := 0; ; i++ {
			if i == 50 {
				go func() { // a put behind it would wait for a server
					_ = p.cmd.Process.Kill()
					endPuts()
					close(killed)
				}()
			}
			if _, err := c.Put(puts, fmt.Sprintf("n/%06d", acknowledged), "v"); err != nil {
				break
			}
			acknowledged++
		}
		<-killed
		if code := p.wait(); code != -1 {
			t.Fatalf("exit code %d", code)
		}
		_ = c.Close()
	}
	if acknowledged < 150 {
		t.Fatalf("only %d writes were acknowledged", acknowledged)
	}
}

// TestProcessStopsUnderLoad: a stop ends open watches and keep-alives with a code
// on which clients come back, and costs no time.
func TestProcessStopsUnderLoad(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"))
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c := p.dial()
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	<-alive
	watch := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
	<-watch
	var writes sync.WaitGroup
	for i := range 4 {
		writes.Go(func() {
			for {
				if _, err := c.Put(ctx, fmt.Sprint("load/", i), "v"); err != nil {
					if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled { // Canceled: by the Close below
						t.Errorf("a write ended with %v (%v)", code, err)
					}
					return
				}
			}
		})
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if strings.Contains(p.log(), "calls under way were cut off") {
		t.Error("something was waited for in vain")
	}
	_ = c.Close()
	writes.Wait()
}

// TestProcessErrors: one clear line for what goes wrong at the start.
func TestProcessErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := start(t, dir)
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"port in use":     {[]string{"--listen-client-urls=http://" + first.client}, "address already in use"},
		"data dir in use": {nil, "in use"},
		"no certificate":  {[]string{"--listen-client-urls=https://127.0.0.1:0", "--cert-file=/nonexistent/c", "--key-file=/nonexistent/k"}, "/nonexistent/c"},
		"not advertised":  {[]string{"--initial-cluster=test=http://10.0.0.1:1"}, "missing from --initial-advertise-peer-urls"},
		"discovery":       {[]string{"--discovery-srv=srv.invalid"}, "error querying DNS SRV records for _etcd-server-ssl"},
	} {
		where := filepath.Join(t.TempDir(), "other")
		if name == "data dir in use" {
			where = dir
		}
		p := launch(t, where, tc.args...)
		if code := p.wait(); code != 1 {
			t.Errorf("%s: exit code %d", name, code)
		}
		fatal := grep(p.log(), `"level":"fatal"`)
		if strings.Count(fatal, "\n") > 1 || !strings.Contains(fatal, tc.want) {
			t.Errorf("%s: %s", name, fatal)
		}
	}
	if code := first.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the first member was disturbed: exit code %d", code)
	}
}

func TestProcessVersionAndUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--version": "etcd Version: 3.7.3\nGit SHA: ",
		"version":   "etcd Version: 3.7.3\nGit SHA: ",
	} {
		out, err := exec.Command(binary, args).Output()
		if err != nil || !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "\nGo OS/Arch: ") || !strings.HasSuffix(string(out), "shim Version: "+shimVersion+"\n") {
			t.Errorf("%s: %q, %v", args, out, err)
		}
	}
	out, err := exec.Command(binary, "--help").Output()
	if err != nil || !strings.Contains(string(out), "--quota-backend-bytes '0'") {
		t.Errorf("--help: %v\n%s", err, out)
	}
	for args, code := range map[string]int{"--nosuch": 2, "gateway": 2, "check": 2, "dump": 2, "nosuch": 1} {
		cmd := exec.Command(binary, args)
		if _ = cmd.Run(); cmd.ProcessState.ExitCode() != code {
			t.Errorf("%s: exit code %d, want %d", args, cmd.ProcessState.ExitCode(), code)
		}
	}
}

// TestProcessNotifiesSystemd: READY once it serves, STOPPING when it stops.
func TestProcessNotifiesSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	p := start(t, filepath.Join(t.TempDir(), "data"))
	buf := make([]byte, 64)
	for i, want := range []string{"READY=1", "STOPPING=1"} {
		_ = c.SetReadDeadline(time.Now().Add(startTimeout))
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v, want %s", buf[:n], err, want)
		}
		if i == 0 {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if code := p.waitAfter(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProcessCheckAndDump: a member that was stopped is sound, one that lost a
// byte is not.
func TestProcessCheckAndDump(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir)
	if _, err := p.dial().Put(t.Context(), "dumped-key", "v"); err != nil {
		t.Fatal(err)
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	out, err := exec.Command(binary, "check", dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok") {
		t.Errorf("check: %s, %v", out, err)
	}
	out, err = exec.Command(binary, "dump", dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "dumped-key") {
		t.Errorf("dump: %s, %v", out, err)
	}
	if out, err = exec.Command(binary, "check", filepath.Join(t.TempDir(), "nothing")).CombinedOutput(); err == nil {
		t.Errorf("check of nothing: %s", out)
	}

	segment := flipByte(t, dir, 4100)
	if out, err = exec.Command(binary, "check", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), segment+": offset ") {
		t.Errorf("check of a flipped byte: %s, %v", out, err)
	}
	refused := launch(t, dir)
	if code := refused.wait(); code != 1 || !strings.Contains(grep(refused.log(), `"level":"fatal"`), segment+" at offset ") {
		t.Errorf("start with a flipped byte: exit code %d, %s", code, grep(refused.log(), `"level":"fatal"`))
	}
}

// flipByte damages the log of a stopped member and answers which file.
func flipByte(t *testing.T, dir string, offset int64) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no log: %v", err)
	}
	f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return segments[0]
}

// TestProcessAutoCompaction: history older than the retention goes away by
// itself.
func TestProcessAutoCompaction(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"), "--auto-compaction-retention=100ms")
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c := p.dial()
	for i := 0; ; i++ {
		if _, err := c.Put(ctx, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Get(ctx, "k", clientv3.WithRev(2))
		if errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p.awaitLog("automatic periodic compaction at revision")
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProcessHTTPApart is --listen-client-http-urls.
func TestProcessHTTPApart(t *testing.T) {
	apart := freeport.Addr(t)
	p := start(t, filepath.Join(t.TempDir(), "data"), "--listen-client-http-urls=http://"+apart)
	if _, err := p.dial().Put(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
	if got := p.get(apart, "/health"); got != `{"health":"true","reason":""}` {
		t.Errorf("/health: %s", got)
	}
	if resp, err := http.Get("http://" + p.client + "/health"); err == nil {
		resp.Body.Close()
		t.Error("HTTP is served beside gRPC still")
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProcessLimits: the limits of requests arrive where they are enforced.
func TestProcessLimits(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"), "--max-txn-ops=2", "--max-request-bytes=1000", "--quota-backend-bytes=100000",
		"--max-learners=0")
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c := p.dial()
	three := []clientv3.Op{clientv3.OpPut("a", "1"), clientv3.OpPut("b", "1"), clientv3.OpPut("c", "1")}
	if _, err := c.Txn(ctx).Then(three...).Commit(); !errors.Is(err, rpctypes.ErrTooManyOps) {
		t.Errorf("three operations: %v", err)
	}
	if _, err := c.Put(ctx, "big", strings.Repeat("x", 1000)); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("a large request: %v", err)
	}
	_, err := c.MemberAddAsLearner(ctx, []string{"http://127.0.0.1:1"})
	if !errors.Is(err, rpctypes.ErrTooManyLearners) {
		t.Errorf("a learner where there are none: %v", err)
	}
	err = nil
	for i := 0; err == nil && i < 1000; i++ {
		_, err = c.Put(ctx, fmt.Sprint("fill/", i), strings.Repeat("x", 900))
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("over the quota: %v", err)
	}
	if code, got := p.status(p.client, "/health"); code != http.StatusServiceUnavailable || !strings.Contains(got, "ALARM NOSPACE") {
		t.Errorf("/health over the quota: %d %s", code, got)
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
