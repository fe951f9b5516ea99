package etcdapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// frontTest is a Front with gRPC's health service and one HTTP handler.
type frontTest struct {
	*Front
	t        *testing.T
	drain    *Drain
	health   *health.Server
	authInfo chan credentials.AuthInfo // of each unary call
	stopped  bool
}

// startFront serves on the URLs; split takes HTTP off the first one.
func startFront(t *testing.T, o FrontOptions, material *TLS, split bool, urls ...string) (*frontTest, []net.Addr) {
	t.Helper()
	ft := &frontTest{t: t, drain: NewDrain(), health: health.NewServer(), authInfo: make(chan credentials.AuthInfo, 64)}
	g := grpc.NewServer(grpc.Creds(FrontCredentials()), grpc.WaitForHandlers(true),
		grpc.StreamInterceptor(ft.drain.Intercept),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			ft.authInfo <- p.AuthInfo
			return h(ctx, req)
		}))
	healthpb.RegisterHealthServer(g, ft.health)
	mux := http.NewServeMux()
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+map[bool]string{true: "tls", false: "plain"}[r.TLS != nil])
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })

	var endpoints []Endpoint
	var addrs []net.Addr
	for i, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := Listen(t.Context(), *u, ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e := Endpoint{Listener: ln, GRPC: g, HTTP: mux}
		if Secure(*u) {
			e.TLS = material
		}
		if split && i == 0 {
			e.HTTP = nil
		} else if split {
			e.GRPC = nil
		}
		endpoints = append(endpoints, e)
		addrs = append(addrs, ln.Addr())
	}
	f, err := NewFront(o, endpoints)
	if err != nil {
		t.Fatal(err)
	}
	ft.Front = f
	f.Start()
	t.Cleanup(ft.stop)
	return ft, addrs
}

func (ft *frontTest) stop() {
	if ft.stopped {
		return
	}
	ft.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ft.drain.Begin()
	if err := ft.Shutdown(ctx); err != nil {
		ft.t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-ft.Err():
		ft.t.Errorf("an endpoint failed: %v", err)
	default:
	}
}

// dialGRPC answers a client of the health service. A nil config is plain text.
func dialGRPC(t *testing.T, addr net.Addr, config *tls.Config) healthpb.HealthClient {
	t.Helper()
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, addr.Network(), addr.String())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return healthpb.NewHealthClient(c)
}

// httpClient speaks HTTP/1 to addr.
func httpClient(addr net.Addr, config *tls.Config) *http.Client {
	if config != nil {
		config = config.Clone() // the transport writes what it offers into it
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   config,
		ForceAttemptHTTP2: config != nil, // offers h2 and http/1.1, as browsers and curl do
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, addr.Network(), addr.String())
		},
	}}
}

func getText(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkHealth(t *testing.T, c healthpb.HealthClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
}

// TestFrontOnePort: gRPC and HTTP/1 on the same address, for each kind of it.
func TestFrontOnePort(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	client, clientKey, _ := ca.issue("client")
	material := mustTLS(t, TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), ClientCertAuth: true}, nil)
	config := ca.client(client, clientKey)
	dir := t.TempDir()
	ft, addrs := startFront(t, FrontOptions{}, material, false,
		"http://127.0.0.1:0", "https://127.0.0.1:0", "unix://"+dir+"/plain.sock", "unixs://"+dir+"/tls.sock")
	for i, addr := range addrs {
		c, scheme, proto := config, "https", "HTTP/2.0 tls"
		if i == 0 || i == 2 {
			c, scheme, proto = nil, "http", "HTTP/1.1 plain"
		}
		checkHealth(t, dialGRPC(t, addr, c))
		info := <-ft.authInfo
		if tlsInfo, ok := info.(tlsInfo); ok != (c != nil) {
			t.Errorf("%v: gRPC sees %T", addr, info)
		} else if ok && tlsInfo.State.PeerCertificates[0].Subject.CommonName != "client" {
			t.Errorf("%v: gRPC sees the certificate of %v", addr, tlsInfo.State.PeerCertificates[0].Subject)
		}
		if got := getText(t, httpClient(addr, c), scheme+"://127.0.0.1/who"); got != proto {
			t.Errorf("%v: %q, want %q", addr, got, proto)
		}
		if c != nil {
			noALPN := httpClient(addr, c)
			noALPN.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			if got := getText(t, noALPN, scheme+"://127.0.0.1/who"); got != "HTTP/1.1 tls" {
				t.Errorf("%v without ALPN: %q", addr, got)
			}
			shared := c.Clone() // as when a program uses one configuration for both
			shared.NextProtos = []string{"h2", "http/1.1"}
			checkHealth(t, dialGRPC(t, addr, shared))
			if info := <-ft.authInfo; info.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName != "client" {
				t.Errorf("%v: gRPC over the HTTP server sees %+v", addr, info)
			}
		}
	}
	if in, out := ft.Traffic(); in == 0 || out == 0 {
		t.Errorf("traffic: %d received, %d sent", in, out)
	}
	ft.stop()
	if _, err := os.Stat(dir + "/plain.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is left behind: %v", err)
	}
}

// TestFrontSplit is --listen-client-http-urls.
func TestFrontSplit(t *testing.T) {
	_, addrs := startFront(t, FrontOptions{}, nil, true, "http://127.0.0.1:0", "http://127.0.0.1:0")
	checkHealth(t, dialGRPC(t, addrs[0], nil))
	if got := getText(t, httpClient(addrs[1], nil), "http://127.0.0.1/who"); got != "HTTP/1.1 plain" {
		t.Errorf("%q", got)
	}
	if resp, err := httpClient(addrs[0], nil).Get("http://127.0.0.1/who"); err == nil {
		resp.Body.Close()
		t.Error("HTTP is served on the gRPC address")
	}
}

// TestFrontSlowFirstBytes: what a client speaks is found out however its first
// bytes are cut, and no byte is lost on the way.
func TestFrontSlowFirstBytes(t *testing.T) {
	_, addrs := startFront(t, FrontOptions{}, nil, false, "http://127.0.0.1:0")
	request := "PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
	for cut := range 6 {
		c, err := net.Dial("tcp", addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{request[:cut], request[cut:]} {
			if _, err := io.WriteString(c, part); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if string(body) != "hello" {
			t.Errorf("cut at %d: %q", cut, body)
		}
		_ = c.Close()
	}
	// The preface of HTTP/2, a byte at a time: the server answers with its settings.
	c, err := net.Dial("tcp", addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	emptySettings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	for _, b := range append(append([]byte{}, http2Preface...), emptySettings...) {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Errorf("no settings frame: %x, %v", head, err)
	}
}

// TestFrontGivesUpSilentClients: a client that says nothing is disconnected, in
// plain text and in TLS, and somebody is told.
func TestFrontGivesUpSilentClients(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	rejected := make(chan Rejected, 2)
	o := FrontOptions{RouteTimeout: time.Millisecond, OnRejected: func(r Rejected) { rejected <- r }}
	_, addrs := startFront(t, o, mustTLS(t, TLSOptions{CertFile: cert, KeyFile: key}, nil), false, "http://127.0.0.1:0", "https://127.0.0.1:0")
	for _, addr := range addrs {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%v: not closed", addr)
		}
		if r := <-rejected; !r.Quiet() || !errors.Is(r.Err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: rejected for %v", addr, r.Err)
		}
	}
}

// TestFrontConnectionsMax: one more client than there are places waits until a
// place is free, and is served then.
func TestFrontConnectionsMax(t *testing.T) {
	_, addrs := startFront(t, FrontOptions{ConnectionsMax: 1}, nil, false, "http://127.0.0.1:0")
	first, err := net.Dial("tcp", addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(c net.Conn) {
		if _, err := io.WriteString(c, "GET /who HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	ask(first)
	if _, err := http.ReadResponse(bufio.NewReader(first), nil); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	ask(second)
	answered := make(chan error, 1)
	go func() {
		_, err := http.ReadResponse(bufio.NewReader(second), nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("the second client was answered beside the first: %v", err)
	default:
	}
	_ = first.Close()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestFrontNeedsDescriptors(t *testing.T) {
	if _, err := NewFront(FrontOptions{ConnectionsMax: -1}, nil); err == nil || !strings.Contains(err.Error(), "file descriptor limit") {
		t.Errorf("%v", err)
	}
}

// TestFrontDrain: on shutdown endless streams end with a code on which clients
// come back, and nothing is waited for in vain.
func TestFrontDrain(t *testing.T) {
	ft, addrs := startFront(t, FrontOptions{}, nil, false, "http://127.0.0.1:0")
	stream, err := dialGRPC(t, addrs[0], nil).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", addrs[0].String()) // says nothing, must not be waited for
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	ft.stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "server stopped") {
		t.Errorf("the stream ended with %v", err)
	}
	if c, err := net.Dial("tcp", addrs[0].String()); err == nil {
		_ = c.Close()
		t.Error("the address is still open")
	}
}

func TestListenErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(t.Context(), url.URL{Scheme: "http", Host: ln.Addr().String()}, ListenOptions{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
	path := filepath.Join(t.TempDir(), "s")
	socket := url.URL{Scheme: "unix", Path: path}
	held, err := Listen(t.Context(), socket, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), socket, ListenOptions{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket in use: %v", err)
	}
	held.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = held.Close() // as a process that was killed leaves it
	again, err := Listen(t.Context(), socket, ListenOptions{})
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	_ = again.Close()
}

func TestListenReusePort(t *testing.T) {
	o := ListenOptions{ReusePort: true, ReuseAddress: true}
	first, err := Listen(t.Context(), url.URL{Scheme: "http", Host: "127.0.0.1:0"}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(t.Context(), url.URL{Scheme: "http", Host: first.Addr().String()}, o)
	if err != nil {
		t.Fatalf("the port is not shared: %v", err)
	}
	_ = second.Close()
}

// TestConnReadOnReady: the way grpc-go reads from idle connections gives the same
// bytes as Read, those looked at first, and takes no buffer while it waits.
func TestConnReadOnReady(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	released := 0
	c := newConn(raw, func() { released++ })
	var stats traffic
	c.traffic = &stats
	want := append(append([]byte{}, http2Preface...), bytes.Repeat([]byte("x"), 100)...)
	if _, err := client.Write(want); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.isHTTP2(); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	pool := &countingPool{}
	var got []byte
	for len(got) < len(want) {
		buf, n, err := c.ReadOnReady(64, pool)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, (*buf)[:n]...)
		pool.Put(buf)
	}
	if !bytes.Equal(got, want) || stats.received.Load() != uint64(len(want)) {
		t.Errorf("read %q, counted %d", got, stats.received.Load())
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := c.ReadOnReady(64, pool)
		ended <- err
	}()
	_ = client.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if pool.out != 0 {
		t.Errorf("%d buffers were not given back", pool.out)
	}
	_, _ = c.Close(), c.Close()
	if released != 1 {
		t.Errorf("the place was given back %d times", released)
	}
}

// TestConnWriteAsksForMore: before a write that could be larger, and only then.
func TestConnWriteAsksForMore(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	asked := 0
	c := newConn(server, nil)
	c.more = func() bool { asked++; return asked < 3 }
	go io.Copy(io.Discard, client)
	for i, size := range []int{1, connWriteYieldMax, connWriteYieldMax - 1, 1} {
		want := []int{1, 1, 2, 3}[i]
		if n, err := c.Write(make([]byte, size)); n != size || err != nil || asked != want {
			t.Fatalf("write of %d: %d, %v; asked %d times, want %d", size, n, err, asked, want)
		}
	}
}

// TestConnWritesInTurns: large writes of all connections take turns, and one
// whose client does not read keeps nobody waiting.
func TestConnWritesInTurns(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	turns := newTurns(1, func() int64 { return 0 })
	connect := func() (client net.Conn, c *conn) {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		raw, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		c = newConn(raw, nil)
		c.turns = turns
		return client, c
	}
	large := make([]byte, 32<<20) // more than any socket takes
	for i := range large {
		large[i] = byte(i >> 12)
	}
	write := func(c *conn) chan error {
		done := make(chan error, 1)
		go func() {
			n, err := c.Write(large)
			if err == nil && n != len(large) {
				err = fmt.Errorf("%d bytes were written", n)
			}
			done <- err
		}()
		return done
	}
	read := func(client net.Conn) {
		got := make([]byte, len(large))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, large) {
			t.Errorf("not what was written: %v", err)
		}
	}
	asleep, slow := connect()
	awake, fast := connect()
	slowDone := write(slow)
	fastDone := write(fast)
	read(awake)
	if err := <-fastDone; err != nil {
		t.Error(err)
	}
	ours := turns.take() // only small writes get through
	if n, err := fast.Write(make([]byte, connBulkBytesMin-1)); n != connBulkBytesMin-1 || err != nil {
		t.Errorf("small write: %d, %v", n, err)
	}
	turns.free <- ours
	read(asleep)
	if err := <-slowDone; err != nil {
		t.Error(err)
	}
	failed := write(slow)
	asleep.Close()
	if err := <-failed; err == nil {
		t.Error("written to a client that is gone")
	}
}

// countingPool counts the buffers that are out.
type countingPool struct{ out int }

func (p *countingPool) Get(n int) *[]byte { p.out++; b := make([]byte, n); return &b }
func (p *countingPool) Put(*[]byte)       { p.out-- }

var _ mem.BufferPool = (*countingPool)(nil)
