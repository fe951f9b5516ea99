package etcdapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcdgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
)

// startGateway serves a gateway over plain HTTP, and ends both with the test.
func startGateway(t testing.TB, opts Options, extra ...grpc.ServerOption) (*Gateway, *httptest.Server) {
	t.Helper()
	return gatewayOf(t, startServer(t, opts), extra...)
}

// gatewayOf is the gateway of a server.
func gatewayOf(t testing.TB, ts *testServer, extra ...grpc.ServerOption) (*Gateway, *httptest.Server) {
	t.Helper()
	g, err := NewGateway(ts.Server, extra...)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(NewClientHandler(HTTPOptions{Gateway: g}))
	t.Cleanup(func() {
		web.CloseClientConnections()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	return g, web
}

func postJSON(t testing.TB, c *http.Client, url, body string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// TestGatewayProtocols: over TLS the gateway is there in HTTP/1.1 and in HTTP/2,
// for clients whose certificate the endpoint asked for, and the gRPC side of it
// sees no certificate.
func TestGatewayProtocols(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	material := mustTLS(t, TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), ClientCertAuth: true}, nil)
	ts := startServer(t, Options{})
	infos := make(chan string, 8)
	drain := NewDrain()
	g, err := NewGateway(ts.Server, append(drain.Options(), grpc.ChainStreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			p, _ := peer.FromContext(ss.Context())
			infos <- p.AuthInfo.AuthType()
			return h(srv, ss)
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(t.Context(), url.URL{Scheme: "https", Host: "127.0.0.1:0"}, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var refuse atomic.Bool
	pages := NewClientHandler(HTTPOptions{Gateway: g, RefuseNames: refuse.Load})
	server := ts.NewGRPCServer(append(drain.Options(), grpc.Creds(FrontCredentials()))...)
	front, err := NewFront(FrontOptions{}, []Endpoint{{Listener: ln, TLS: material, GRPC: server, HTTP: pages}})
	if err != nil {
		t.Fatal(err)
	}
	front.Start()
	clientCert, clientKey, _ := ca.issue("client")
	for _, major := range []int{1, 2} {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.client(clientCert, clientKey), ForceAttemptHTTP2: major == 2}}
		resp, body := postJSON(t, c, "https://"+ln.Addr().String()+"/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`)
		if resp.ProtoMajor != major || resp.StatusCode != http.StatusOK || !strings.Contains(body, `"revision"`) {
			t.Errorf("HTTP/%d: %s %s %s", major, resp.Proto, resp.Status, body)
		}
		w, err := c.Post("https://"+ln.Addr().String()+"/v3/watch", "", strings.NewReader(`{"create_request":{"key":"YQ==","start_revision":"2"}}`))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		lines := bufio.NewReader(w.Body)
		for _, want := range []string{`"created":true`, `"mod_revision":"2"`} {
			if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(strip(line), want) {
				t.Errorf("HTTP/%d: %q, %v; want %s", major, line, err, want)
			}
		}
		if info := <-infos; info != "insecure" {
			t.Errorf("HTTP/%d: the gateway's call says %s", major, info)
		}
	}
	refuse.Store(true) // users are asked for: the name in the certificate would not count
	named := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.client(clientCert, clientKey)}}
	if resp, body := postJSON(t, named, "https://"+ln.Addr().String()+"/v3/kv/range", `{"key":"YQ=="}`); resp.StatusCode != http.StatusBadRequest || body != errGatewayName+"\n" {
		t.Errorf("with a name: %s %s", resp.Status, body)
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.client("", "")}}
	if _, err := stranger.Get("https://" + ln.Addr().String() + "/v3/kv/range"); err == nil {
		t.Error("a client without a certificate was answered")
	}
	// Two watches are open: both end, and nothing is waited for in vain.
	drain.Begin()
	ctx := within(t)
	if err := errors.Join(front.Shutdown(ctx), g.Close()); err != nil {
		t.Error(err)
	}
}

func strip(s string) string { return strings.ReplaceAll(s, " ", "") }

// TestGatewayMetadata: what identifies the caller reaches the call.
func TestGatewayMetadata(t *testing.T) {
	seen := make(chan metadata.MD, 1)
	_, web := startGateway(t, Options{}, grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		return h(ctx, req)
	}))
	req, err := http.NewRequest(http.MethodPost, web.URL+"/v3/lease/leases", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token.1")
	req.Header.Set("Grpc-Metadata-Hasleader", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	md := <-seen
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "token.1" {
		t.Errorf("authorization: %q", got)
	}
	if got := md.Get("hasleader"); len(got) != 1 || got[0] != "true" {
		t.Errorf("hasleader: %q", got)
	}
	if got := resp.Header.Get("Grpc-Metadata-Content-Type"); got != "application/grpc" {
		t.Errorf("content type of the call: %q", got)
	}
}

// countingReader is an endless JSON string that counts what was read of it.
type countingReader struct{ n int64 }

func (r *countingReader) Read(p []byte) (int, error) {
	head := copy(p, `{"value":"`[min(r.n, 10):])
	for i := head; i < len(p); i++ {
		p[i] = 'A'
	}
	r.n += int64(len(p))
	return len(p), nil
}

// TestGatewayBounds: a message that gRPC would refuse is not read to its end
// first, and a stream of small ones may be longer than the bound of one.
func TestGatewayBounds(t *testing.T) {
	g, web := startGateway(t, Options{MaxRequestBytes: 1024})
	body := &countingReader{}
	resp, err := http.Post(web.URL+"/v3/kv/put", "", io.LimitReader(body, 4*g.messageMax))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var refusal struct {
		Code    int
		Message string
	}
	if err := json.NewDecoder(resp.Body).Decode(&refusal); err != nil || resp.StatusCode != http.StatusTooManyRequests || refusal.Code != 8 {
		t.Errorf("%s %+v %v", resp.Status, refusal, err)
	}
	// Within the bound of JSON it is gRPC that refuses.
	large := base64.StdEncoding.EncodeToString(make([]byte, grpcOverheadBytes+2048))
	if resp, text := postJSON(t, http.DefaultClient, web.URL+"/v3/kv/put", `{"key":"YQ==","value":"`+large+`"}`); resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, "received message larger than max") {
		t.Errorf("%s %s", resp.Status, text)
	}

	m := gatewayMarshaler{Marshaler: &runtime.JSONPb{}, tooLarge: errors.New("too large"), max: 4096}
	const message = `{"ID":"7"}` + "\n"
	d := m.NewDecoder(strings.NewReader(strings.Repeat(message, 10*4096/len(message)) + `{"ID":"` + strings.Repeat("0", 9000)))
	for i := range 10 * 4096 / len(message) {
		var r pb.LeaseKeepAliveRequest
		if err := d.Decode(&r); err != nil || r.ID != 7 {
			t.Fatalf("message %d: %v %v", i, r.ID, err)
		}
	}
	if err := d.Decode(&pb.LeaseKeepAliveRequest{}); !errors.Is(err, m.tooLarge) {
		t.Errorf("the long one: %v", err)
	}
}

// TestGatewaySocket: a watch over a WebSocket, whose token is in the protocol.
func TestGatewaySocket(t *testing.T) {
	seen := make(chan string, 1)
	var open *websocket.Conn
	t.Cleanup(func() { open.Close() }) // behind the gateway's end
	g, web := startGateway(t, Options{}, grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		seen <- strings.Join(metadata.ValueFromIncomingContext(ss.Context(), "authorization"), ",")
		return h(srv, ss)
	}))
	address := "ws" + strings.TrimPrefix(web.URL, "http") + "/v3/watch"
	c, _, err := (&websocket.Dialer{Subprotocols: []string{"Bearer", "token.1"}}).DialContext(within(t), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Subprotocol() != "Bearer" {
		t.Errorf("protocol %q", c.Subprotocol())
	}
	say := func(text string) {
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		_, message, err := c.ReadMessage()
		if err != nil || !strings.Contains(strip(string(message)), want) || bytes.ContainsRune(message, '\n') {
			t.Fatalf("%q, %v; want %s", message, err, want)
		}
	}
	say(`{"create_request":{"key":"YQ=="}}`)
	hear(`"created":true`)
	if got := <-seen; got != "Bearer token.1" {
		t.Errorf("token %q", got)
	}
	postJSON(t, http.DefaultClient, web.URL+"/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`)
	hear(`"value":"MQ=="`)
	say(`{"cancel_request":{"watch_id":"0"}}`)
	hear(`"canceled":true`)
	// One that is too large ends the connection, and one that is open does not
	// keep the gateway from closing.
	if err := c.WriteMessage(websocket.TextMessage, make([]byte, g.messageMax+1)); err == nil {
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
			t.Errorf("after too much: %v", err)
		}
	}
	open, _, err = websocket.DefaultDialer.DialContext(within(t), address, http.Header{"Cookie": {"token=token.2"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := open.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"YQ=="}}`)); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "Bearer token.2" {
		t.Errorf("token %q", got)
	}
	// Nor does one whose client does not read what comes.
	value := base64.StdEncoding.EncodeToString(make([]byte, 1<<20))
	for range 16 {
		postJSON(t, http.DefaultClient, web.URL+"/v3/kv/put", `{"key":"YQ==","value":"`+value+`"}`)
	}
}

// TestGatewayAccess: the checks for browsers stand before the gateway, and the
// path of old is another name.
func TestGatewayAccess(t *testing.T) {
	g, _ := startGateway(t, Options{})
	h := NewClientHandler(HTTPOptions{Gateway: g, Hosts: []string{"localhost"}, CORS: []string{"http://app"}})
	for _, c := range []struct {
		method, host, path string
		status             int
	}{
		{http.MethodPost, "localhost:2379", "/v3/kv/range", http.StatusOK},
		{http.MethodPost, "localhost", "/v3beta/kv/range", http.StatusOK},
		{http.MethodPost, "evil.example", "/v3/kv/range", http.StatusMisdirectedRequest},
		{http.MethodOptions, "localhost", "/v3/kv/range", http.StatusOK},
		{http.MethodGet, "localhost", "/v3/kv/range", http.StatusNotImplemented},
	} {
		r := httptest.NewRequest(c.method, "http://"+c.host+c.path, strings.NewReader(`{"key":"YQ=="}`))
		r.Header.Set("Origin", "http://app")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		allowed := w.Header().Get("Access-Control-Allow-Origin")
		if w.Code != c.status || (allowed == "http://app") != (c.status != http.StatusMisdirectedRequest) {
			t.Errorf("%s %s at %s: %d, allowed %q", c.method, c.path, c.host, w.Code, allowed)
		}
	}
}

// BenchmarkGateway measures a put and a get as JSON: over the gateway's pipe, over
// a connection of the loopback as etcd has it, and without HTTP.
func BenchmarkGateway(b *testing.B) {
	ts := startServer(b, Options{})
	g, err := NewGateway(ts.Server)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	loop, err := grpc.NewClient(ts.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer loop.Close()
	mux := newGatewayMux(1 << 20)
	if err := etcdgw.RegisterKVHandler(context.Background(), mux, loop); err != nil {
		b.Fatal(err)
	}
	value := base64.StdEncoding.EncodeToString(make([]byte, 400))
	for _, call := range []struct{ name, path, body string }{
		{"get", "/v3/kv/range", `{"key":"YQ=="}`},
		{"put", "/v3/kv/put", fmt.Sprintf(`{"key":"YQ==","value":"%s"}`, value)},
	} {
		for _, way := range []struct {
			name string
			h    http.Handler
		}{{"pipe", g}, {"loopback", mux}} {
			b.Run(call.name+"/"+way.name, func(b *testing.B) {
				for b.Loop() {
					w := httptest.NewRecorder()
					way.h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, call.path, strings.NewReader(call.body)))
					if w.Code != http.StatusOK {
						b.Fatal(w.Code, w.Body)
					}
				}
			})
		}
	}
}

// TestGatewayClosedAtOnce: a gateway that is closed before its server has begun is closed well.
func TestGatewayClosedAtOnce(t *testing.T) {
	ts := startServer(t, Options{})
	for range 50 {
		g, err := NewGateway(ts.Server)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
