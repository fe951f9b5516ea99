package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubeshim/shim/internal/freeport"
)

// frames is a connection to a client address that speaks HTTP/2 by the frame.
type frames struct {
	*http2.Framer
	t testing.TB
}

func (p *process) frames() frames {
	p.t.Helper()
	c, err := net.Dial("tcp", p.client)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.framesOn(c)
}

func (p *process) framesOn(c net.Conn) frames {
	p.t.Helper()
	p.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		p.t.Fatal(err)
	}
	f := frames{http2.NewFramer(c, c), p.t}
	if err := f.WriteSettings(); err != nil {
		p.t.Fatal(err)
	}
	return f
}

// until reads frames until want takes one; the error is that of reading.
func (f frames) until(want func(http2.Frame) bool) error {
	for {
		frame, err := f.ReadFrame()
		if err != nil || want(frame) {
			return err
		}
	}
}

// watch opens a stream that stays open: pings are for connections with one.
func (f frames) watch() {
	f.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/etcdserverpb.Watch/Watch"}, {":authority", "test"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		f.t.Fatal(err)
	}
}

// pingOften sends pings at once, and says whether all were answered. The other
// way is to be sent away.
func (f frames) pingOften() (answered bool) {
	f.t.Helper()
	const pings = 10
	for i := range byte(pings) {
		if err := f.WritePing(false, [8]byte{i}); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.until(func(frame http2.Frame) bool {
		ping, ok := frame.(*http2.PingFrame)
		answered = ok && ping.IsAck() && ping.Data[0] == pings-1
		gone, ok := frame.(*http2.GoAwayFrame)
		return answered || ok && string(gone.DebugData()) == "too_many_pings"
	}); err != nil {
		f.t.Errorf("neither an answer to each ping nor a GOAWAY: %v", err)
	}
	return answered
}

// TestProcessMaxConcurrentStreams: the number is in the server's settings, which a
// client keeps to.
func TestProcessMaxConcurrentStreams(t *testing.T) {
	p := start(t, t.TempDir(), "--max-concurrent-streams=7")
	defer p.stop(syscall.SIGTERM)
	var got uint32
	err := p.frames().until(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			return false
		}
		got, _ = s.Value(http2.SettingMaxConcurrentStreams)
		return true
	})
	if err != nil || got != 7 {
		t.Errorf("the settings say %d streams (%v)", got, err)
	}
}

// TestProcessFlagsBeyondTheirUse: etcd takes these.
func TestProcessFlagsBeyondTheirUse(t *testing.T) {
	p := start(t, t.TempDir(), "--max-request-bytes=18446744073709551615", "--max-txn-ops=4294967296", "--profile=edge",
		"--grpc-keepalive-interval=-1s", "--grpc-keepalive-timeout=-1s")
	defer p.stop(syscall.SIGTERM)
	if _, err := p.dial().Put(t.Context(), "large", strings.Repeat("x", 1_900_000)); err != nil {
		t.Error(err)
	}
}

// TestProcessKeepAlive: a client that pings too often is sent away, one that is
// idle is pinged, and one that does not answer is let go.
func TestProcessKeepAlive(t *testing.T) {
	for flag, want := range map[string]bool{"--grpc-keepalive-min-time=1ns": true, "--grpc-keepalive-min-time=1h": false, "--grpc-keepalive-min-time=-1s": false} {
		p := start(t, t.TempDir(), flag)
		f := p.frames()
		f.watch()
		if got := f.pingOften(); got != want {
			t.Errorf("%s: all pings were answered: %t", flag, got)
		}
		p.stop(syscall.SIGTERM)
	}

	// gRPC pings once a second at the most, and lets an idle client go that had no call for its first two hours otherwise.
	p := start(t, t.TempDir(), "--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s")
	defer p.stop(syscall.SIGTERM)
	f := p.frames()
	if err := f.until(func(frame http2.Frame) bool {
		x, ok := frame.(*http2.PingFrame)
		return ok && !x.IsAck()
	}); err != nil {
		t.Fatalf("an idle client is not pinged: %v", err)
	}
	var timeout net.Error
	if err := f.until(func(http2.Frame) bool { return false }); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a client that does not answer stays connected")
	}
}

// TestProcessKeepAliveTLS: over TLS a client may ping as often as it likes, also
// without a call, whatever --grpc-keepalive-min-time says: etcd has net/http carry
// gRPC there. Where HTTP has an address of its own it has not.
func TestProcessKeepAliveTLS(t *testing.T) {
	for _, isSplit := range []bool{false, true} {
		p := &process{t: t, client: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
		flags := []string{"--name=test", "--data-dir=" + t.TempDir(), "--auto-tls", "--listen-peer-urls=http://" + p.peer, "--grpc-keepalive-min-time=1h",
			"--listen-client-urls=https://" + p.client, "--advertise-client-urls=https://" + p.client}
		if isSplit {
			flags = append(flags, "--listen-client-http-urls=https://"+freeport.Addr(t))
		}
		p.run(flags...)
		p.await()
		c, err := tls.Dial("tcp", p.client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // it is self-signed
		if err != nil {
			t.Fatal(err)
		}
		if got := p.framesOn(c).pingOften(); got == isSplit {
			t.Errorf("HTTP has its own address: %t; all pings were answered: %t", isSplit, got)
		}
		p.stop(syscall.SIGTERM)
	}
}

// TestProcessSocketReusePort: two processes on the same addresses, which is an
// error without the flag.
func TestProcessSocketReusePort(t *testing.T) {
	first := start(t, t.TempDir(), "--socket-reuse-port")
	defer first.stop(syscall.SIGTERM)
	again := func(flags ...string) *process {
		p := &process{t: t, client: first.client, metrics: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
		p.run(append([]string{"--name=test", "--data-dir=" + t.TempDir(), "--listen-client-urls=http://" + p.client, "--advertise-client-urls=http://" + p.client,
			"--listen-peer-urls=http://" + p.peer}, flags...)...)
		return p
	}
	if p := again(); p.wait() != exitError || !strings.Contains(p.log(), "address already in use") {
		t.Errorf("without the flag: %s", p.log())
	}
	second := again("--socket-reuse-port")
	second.await()
	second.stop(syscall.SIGTERM)
}

// TestProcessExtensiveMetrics: --metrics=extensive adds the durations of calls.
func TestProcessExtensiveMetrics(t *testing.T) {
	for level, want := range map[string]bool{"extensive": true, "basic": false} {
		p := start(t, t.TempDir(), "--metrics="+level)
		if _, err := p.dial().Put(context.Background(), "a", "1"); err != nil {
			t.Fatal(err)
		}
		series := `grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`
		if got := strings.Contains(p.get(p.metrics, "/metrics"), series); got != want {
			t.Errorf("--metrics=%s: the duration of calls is there: %t", level, got)
		}
		p.stop(syscall.SIGTERM)
	}
}

// TestProcessSlowWarnings: what takes longer than its threshold is told of with
// etcd's texts and fields, and counted.
func TestProcessSlowWarnings(t *testing.T) {
	p := start(t, t.TempDir(), "--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns")
	cli, ctx := p.dial(), context.Background()
	if _, err := cli.Put(ctx, "key", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Get(ctx, "key"); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Txn(ctx).Then(clientv3.OpGet("key"), clientv3.OpGet("none")).Commit(); err != nil {
		t.Fatal(err)
	}
	if metrics := p.get(p.metrics, "/metrics"); !strings.Contains(metrics, `etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"} 1`) ||
		strings.Contains(metrics, "etcd_server_slow_apply_total 0\n") {
		t.Errorf("metrics: %s", grep(metrics, "_apply_"))
	}
	p.stop(syscall.SIGTERM)
	log := p.log()
	for _, want := range []string{
		`"msg":"apply request took too long","took":"`,
		`"expected-duration":"1ns","prefix":"","request":"header:<ID:`,
		`put:<key:\"key\" value_size:6 >","response":"size:4"}`,
		`"expected-duration":"1ns","prefix":"read-only range ","request":"key:\"key\"`,
		`"response":"range_response_count:1 size:`,
		`"prefix":"read-only txn ","request":"`,
		`"response":"responses:<range_response_count:1 range_response_count:0> size:`,
		`"msg":"request stats","start time":"`,
		`"response type":"/etcdserverpb.KV/Put","request count":1,"request size":13,"response count":0,"response size":`,
		`"response type":"/etcdserverpb.KV/Range","request count":0,"request size":`,
		`"response count":1,"response size":`,
	} {
		if !strings.Contains(log, want) && !strings.Contains(strings.ReplaceAll(log, "  ", " "), want) {
			t.Errorf("the log lacks %s:\n%s", want, grep(log, "warn"))
		}
	}
	if strings.Contains(log, "secret") {
		t.Error("a value is in the log")
	}
}

// TestProcessSignals: SIGTERM is answered with a clean stop and the death by it,
// as etcd does; SIGHUP ends the process at once.
func TestProcessSignals(t *testing.T) {
	for sig, clean := range map[syscall.Signal]bool{syscall.SIGTERM: true, syscall.SIGINT: true, syscall.SIGHUP: false} {
		p := start(t, t.TempDir())
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.wait()
		status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != sig {
			t.Errorf("%v: ended with %v", sig, p.cmd.ProcessState)
		}
		said := fmt.Sprintf(`"msg":"received signal; shutting down","signal":%q`, sig.String())
		if log := p.log(); strings.Contains(log, said) != clean || strings.Contains(log, "closed etcd server") != clean {
			t.Errorf("%v: the log of a stop that should be clean=%t: %s", sig, clean, log)
		}
	}
}

// TestProcessEndsOfAnIgnoredSignal: a shell has what it runs in the background
// ignore SIGINT. shim stops by it all the same, and tells of it by its exit code.
func TestProcessEndsOfAnIgnoredSignal(t *testing.T) {
	p := &process{t: t, client: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
	p.exec("sh", "-c", `trap "" INT; exec "$0" "$@"`, binary, "--data-dir="+t.TempDir(), "--listen-client-urls=http://"+p.client, "--advertise-client-urls=http://"+p.client,
		"--listen-peer-urls=http://"+p.peer, "--initial-advertise-peer-urls=http://"+p.peer, "--initial-cluster=default=http://"+p.peer)
	p.await()
	if code := p.stop(syscall.SIGINT); code != exitSignal+int(syscall.SIGINT) || !strings.Contains(p.log(), "closed etcd server") {
		t.Errorf("exit code %d: %s", code, p.log())
	}
}
