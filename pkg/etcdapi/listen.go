package etcdapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/handover"
)

const (
	// routeTimeout is how long a new connection may take until it is known what
	// it speaks: the TLS handshake, or the first bytes in plain text. It keeps an
	// idle or hanging client from holding a goroutine for ever. (etcd: 10 s for
	// the handshake, no bound in plain text.)
	routeTimeout = 10 * time.Second
	// httpHeaderTimeout bounds the reading of one HTTP/1 request's header.
	httpHeaderTimeout = 30 * time.Second
	// httpIdleTimeout closes HTTP/1 connections without a request.
	httpIdleTimeout = 5 * time.Minute
	// acceptPauseMin and acceptPauseMax bound the pause after a failed accept
	// that is worth another try, such as one for lack of descriptors.
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
	// tcpKeepAlive is the period of TCP's own keepalive on accepted connections.
	tcpKeepAlive = 30 * time.Second
	// descriptorsReserved are kept from connections for the store's own files.
	descriptorsReserved = 150
)

// ListenOptions are etcd's socket options.
type ListenOptions struct {
	ReusePort    bool // --socket-reuse-port
	ReuseAddress bool // --socket-reuse-address
}

// Listen binds the address of one URL: http and https are TCP "host:port", unix
// and unixs a socket at host and path. A socket file that nobody listens on is
// replaced; one in use is an error, as a port in use is.
func Listen(ctx context.Context, u url.URL, o ListenOptions) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: tcpKeepAlive, Control: o.control}
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		path := u.Host + u.Path
		if err := removeStaleSocket(ctx, path); err != nil {
			return nil, err
		}
		return (&net.ListenConfig{}).Listen(ctx, "unix", path)
	}
	return lc.Listen(ctx, "tcp", u.Host)
}

// Secure says whether a URL's scheme asks for TLS.
func Secure(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

func removeStaleSocket(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	d := net.Dialer{Timeout: time.Second}
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("listen unix %s: %w", path, syscall.EADDRINUSE)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

func (o ListenOptions) control(_, _ string, c syscall.RawConn) error {
	var err error
	set := func(fd uintptr) {
		if o.ReuseAddress {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if o.ReusePort && err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	}
	if cerr := c.Control(set); cerr != nil {
		return cerr
	}
	return err
}

// Endpoint is one bound address and what is served on it.
type Endpoint struct {
	Listener net.Listener
	TLS      *TLS         // nil: plain text
	GRPC     *grpc.Server // nil: no gRPC here
	HTTP     http.Handler // nil: no HTTP here
}

// handler is the endpoint's HTTP handler. Where gRPC is served as well, gRPC
// calls over the HTTP server's own HTTP/2 are brought there: slower than the
// direct way, but right.
func (e Endpoint) handler() http.Handler {
	if e.GRPC == nil {
		return e.HTTP
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			serveGRPC(e.GRPC, w, r)
			return
		}
		e.HTTP.ServeHTTP(w, r)
	})
}

// serveGRPC serves one call. What it writes it writes here, so lists that are lent
// something end with it.
func serveGRPC(g *grpc.Server, w http.ResponseWriter, r *http.Request) {
	lists := &listHolder{drop: dropHTTP(w)}
	defer lists.end()
	g.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), listHolderKey{}, lists)))
}

// FrontOptions configure a Front; the zero value is usable.
type FrontOptions struct {
	// ConnectionsMax bounds the open connections of all endpoints together; a
	// further client waits in the kernel's queue. 0: the process's descriptor
	// limit less 150, as etcd has it.
	ConnectionsMax int
	// RouteTimeout bounds the time until a new connection is known to be gRPC or
	// HTTP, its TLS handshake included. 0: 10 s.
	RouteTimeout time.Duration
	// OnRejected is told of connections given up before they reached a server;
	// it is called on the connection's goroutine. nil: nobody is told.
	OnRejected func(Rejected)
	// MoreToSend says that goroutines are about to run which will send on some gRPC
	// connection. A write that does not fill the transport's buffer lets them run
	// first, so that one system call carries the messages of many. It is called at
	// each write and must be cheap. nil: writes never wait.
	MoreToSend func() bool
	// Revision is the store's newest: while it moves, large answers to many clients at
	// once leave more of the processors to what moves it. nil: it never does.
	Revision func() int64
}

// Rejected is a connection that never reached a server.
type Rejected struct {
	Remote     net.Addr
	ServerName string // what the client asked for by SNI
	Err        error
}

// Quiet says whether the rejection is daily life (a port scan or a health check
// that connects and leaves) rather than something to look into.
func (r Rejected) Quiet() bool {
	return errors.Is(r.Err, io.EOF) || errors.Is(r.Err, os.ErrDeadlineExceeded) ||
		errors.Is(r.Err, context.DeadlineExceeded) || errors.Is(r.Err, syscall.ECONNRESET)
}

// EnsureDefaults fills in what is zero.
func (o *FrontOptions) EnsureDefaults() {
	if o.RouteTimeout == 0 {
		o.RouteTimeout = routeTimeout
	}
	if o.OnRejected == nil {
		o.OnRejected = func(Rejected) {}
	}
	if o.Revision == nil {
		o.Revision = func() int64 { return 0 }
	}
	if o.ConnectionsMax == 0 {
		o.ConnectionsMax = connectionsMaxOfProcess()
	}
}

// Validate reports an option that cannot work.
func (o *FrontOptions) Validate() error {
	if o.ConnectionsMax < 1 {
		return fmt.Errorf("file descriptor limit of the process is too low: connections need more than %d", descriptorsReserved)
	}
	return nil
}

// connectionsMaxOfProcess is below 1 when there are too few descriptors.
func connectionsMaxOfProcess() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	return int(min(lim.Cur, 1<<30)) - descriptorsReserved
}

// Front accepts connections on any number of endpoints and brings each to the
// gRPC or to the HTTP server of its endpoint.
//
// Goroutines: one accept loop per endpoint; per new connection one that does
// the TLS handshake or looks at the first bytes, bounded in time, and ends when
// the connection is handed over; the servers' own. The number of connections,
// those under way included, is bounded by places.
type Front struct {
	o       FrontOptions
	ctx     context.Context // ends when Shutdown begins
	cancel  context.CancelFunc
	places  chan struct{}
	traffic traffic
	turns   *turns // of large answers
	routes  []*route
	grpc    []*grpc.Server // each once
	errs    chan error     // the first failure of an accept loop
	wg      sync.WaitGroup
}

// route is one endpoint at work.
type route struct {
	Endpoint
	grpcConns *handover.Listener
	httpConns *handover.Listener
	server    *http.Server
}

// NewFront takes over the endpoints' listeners. Call Start to accept.
func NewFront(o FrontOptions, endpoints []Endpoint) (*Front, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	f := &Front{o: o, places: make(chan struct{}, o.ConnectionsMax), errs: make(chan error, 1),
		turns: newTurns(max(1, runtime.GOMAXPROCS(0)/2), o.Revision)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	seen := make(map[*grpc.Server]bool)
	for _, e := range endpoints {
		r := &route{Endpoint: e}
		if e.GRPC != nil {
			r.grpcConns = handover.New(e.Listener.Addr())
			if !seen[e.GRPC] {
				seen[e.GRPC] = true
				f.grpc = append(f.grpc, e.GRPC)
			}
		}
		if e.HTTP != nil {
			r.httpConns = handover.New(e.Listener.Addr())
			r.server = &http.Server{
				Handler:           e.handler(),
				HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: math.MaxInt32}, // a gRPC client may be among them
				ReadHeaderTimeout: httpHeaderTimeout,
				IdleTimeout:       httpIdleTimeout,
				ErrorLog:          log.New(io.Discard, "", 0), // a client's mistakes are not our log
			}
		}
		f.routes = append(f.routes, r)
	}
	return f, nil
}

// Start begins to accept on every endpoint.
func (f *Front) Start() {
	for _, r := range f.routes {
		if r.GRPC != nil {
			f.wg.Go(func() { f.failed(r.GRPC.Serve(r.grpcConns)) })
		}
		if r.server != nil {
			f.wg.Go(func() { f.failed(r.server.Serve(r.httpConns)) })
		}
		f.wg.Go(func() { f.accept(r) })
	}
}

// Err yields the first failure that ended an endpoint before Shutdown.
func (f *Front) Err() <-chan error { return f.errs }

// Traffic is the number of bytes received and sent on gRPC connections.
func (f *Front) Traffic() (received, sent uint64) {
	return f.traffic.received.Load(), f.traffic.sent.Load()
}

// Connections are the open ones, those not routed yet included, and their bound.
func (f *Front) Connections() (open, limit int) { return len(f.places), cap(f.places) }

// Shutdown stops accepting, lets the calls under way finish until ctx ends, then
// closes what is left. It returns when every goroutine of the Front has ended.
// Calls that never end by themselves (watches, keep-alives) must be ended by
// their own service, or they cost the whole of ctx.
func (f *Front) Shutdown(ctx context.Context) error {
	f.cancel()
	var wg sync.WaitGroup
	for _, r := range f.routes {
		_ = r.Listener.Close()
		if r.server != nil {
			wg.Go(func() {
				if r.server.Shutdown(ctx) != nil {
					_ = r.server.Close()
				}
			})
		}
	}
	for _, s := range f.grpc {
		wg.Go(func() { stopGRPC(ctx, s) })
	}
	wg.Wait()
	f.wg.Wait()
	return ctx.Err()
}

func stopGRPC(ctx context.Context, s *grpc.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Stop()
		<-done
	}
}

// failed keeps the first failure that was not asked for.
func (f *Front) failed(err error) {
	if err == nil || f.ctx.Err() != nil {
		return
	}
	select {
	case f.errs <- err:
	default:
	}
}

// accept is the loop of one endpoint. It waits for a place before it accepts,
// so a full house leaves clients in the kernel's queue.
func (f *Front) accept(r *route) {
	pause := acceptPauseMin
	for {
		select {
		case f.places <- struct{}{}:
		case <-f.ctx.Done():
			return
		}
		c, err := r.Listener.Accept()
		if err == nil {
			pause = acceptPauseMin
			f.wg.Go(func() { f.route(r, newConn(c, f.leave)) })
			continue
		}
		f.leave()
		if !acceptAgain(err) {
			f.failed(err)
			return
		}
		select {
		case <-time.After(pause):
		case <-f.ctx.Done():
			return
		}
		pause = min(2*pause, acceptPauseMax)
	}
}

// acceptAgain tells errors of one connection, or of a moment without
// descriptors or memory, from the end of the listener.
func acceptAgain(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (f *Front) leave() { <-f.places }

// reject gives a connection up. When that is because of Shutdown nobody is told.
func (f *Front) reject(c *conn, serverName string, err error) {
	if f.ctx.Err() == nil {
		f.o.OnRejected(Rejected{Remote: c.RemoteAddr(), ServerName: serverName, Err: err})
	}
	_ = c.Close()
}

// route finds out what a connection speaks and hands it over.
func (f *Front) route(r *route, c *conn) {
	stop := context.AfterFunc(f.ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(f.o.RouteTimeout))
	var (
		ready   net.Conn = c
		useGRPC          = r.HTTP == nil
		err     error
	)
	switch {
	case r.TLS != nil:
		var offered alpn
		t := tls.Server(c, r.TLS.ServerConfig(r.GRPC != nil, r.HTTP != nil, &offered))
		if err = t.HandshakeContext(f.ctx); err != nil {
			f.reject(c, t.ConnectionState().ServerName, err)
			return
		}
		ready = t
		if r.GRPC != nil && r.HTTP != nil {
			useGRPC = offered.grpcAlone()
		}
	case r.GRPC != nil && r.HTTP != nil:
		if useGRPC, err = c.isHTTP2(); err != nil {
			f.reject(c, "", err)
			return
		}
	}
	_ = c.SetDeadline(time.Time{})
	to := r.httpConns
	if useGRPC {
		to = r.grpcConns
		c.traffic, c.more, c.turns = &f.traffic, f.o.MoreToSend, f.turns
	}
	if !stop() { // Shutdown has begun, the connection is closed already
		return
	}
	to.Give(ready)
}
