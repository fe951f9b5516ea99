package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/kubeshim/shim/pkg/eagerio"
	"github.com/kubeshim/shim/pkg/handover"
)

func (t *Transport) newServer() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(insecure.NewCredentials()), // the handshake is over when a connection gets here
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(t.o.MessageBytesMax+frameSlackBytes),
		grpc.MaxConcurrentStreams(callsMax),
		grpc.MaxHeaderListSize(headerBytesMax),
		// Fixed windows: otherwise gRPC pings the peer whenever data comes, to measure the bandwidth.
		grpc.StaticStreamWindowSize(streamWindowBytes), grpc.StaticConnWindowSize(connWindowBytes),
		grpc.SharedWriteBuffer(true),
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(routeTimeout),
		// Nothing is sent while probes come, twice a second; this finds out that a peer is gone.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepAliveInterval, Timeout: keepAliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepAliveMinTime, PermitWithoutStream: true}),
	)
	stream := func(l lane, h grpc.StreamHandler) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: l.String(), Handler: h, ClientStreams: true, ServerStreams: true}
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: t.handleCall}},
		Streams: []grpc.StreamDesc{
			stream(laneControl, t.handle(laneControl, t.receiveLane)),
			stream(laneAppend, t.handle(laneAppend, t.receiveLane)),
			stream(laneSnapshot, t.handle(laneSnapshot, t.receiveSnapshot)),
		},
	}, t)
	return s
}

// front brings the connections of one listener to the gRPC or to the HTTP server.
type front struct {
	t      *Transport
	ctx    context.Context
	tls    *tls.Config // nil: plain text
	grpc   *handover.Listener
	http   *handover.Listener
	places chan struct{}
	wg     sync.WaitGroup
}

// Serve accepts connections until Close, or until the listener fails, which is the error. It takes the listener over. gRPC, pipes and HTTP/1
// share it: in plain text by the first bytes, with TLS by the protocols that the client offers.
func (t *Transport) Serve(l net.Listener) error {
	f := &front{t: t, tls: splitTLS(t.o.ServerTLS), grpc: handover.New(l.Addr()), http: handover.New(l.Addr()), places: make(chan struct{}, connectionsMax)}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	f.ctx = ctx
	web := &http.Server{Handler: t.HTTPHandler(), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, IdleTimeout: httpIdleTimeout}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		_ = l.Close()
		return ErrClosed
	}
	t.listeners[l] = func() {
		_ = l.Close()
		_ = web.Close()
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	f.wg.Go(func() { _ = t.grpc.Serve(f.grpc) })
	f.wg.Go(func() { _ = web.Serve(f.http) })
	err := f.accept(l)
	cancel()
	_ = l.Close()
	f.grpc.Close()
	_ = web.Close()
	f.wg.Wait()
	t.mu.Lock()
	delete(t.listeners, l)
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return nil
	}
	return fmt.Errorf("accept peers: %w", err)
}

// splitTLS lets every handshake end with h2 for clients that offer nothing else, which are gRPC clients, with the pipes' protocol for those
// that offer it, and with HTTP/1 for all others.
func splitTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	given := c.GetConfigForClient
	base := c.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen := base
		if given != nil {
			own, err := given(hello)
			if err != nil {
				return nil, err
			}
			if own != nil {
				chosen = own
			}
		}
		chosen = chosen.Clone()
		chosen.NextProtos = []string{"http/1.1"}
		switch {
		case slices.Contains(hello.SupportedProtos, pipeProtocol):
			chosen.NextProtos = []string{pipeProtocol}
		case slices.Contains(hello.SupportedProtos, "h2") && !slices.Contains(hello.SupportedProtos, "http/1.1"):
			chosen.NextProtos = []string{"h2"}
		}
		return chosen, nil
	}
	return c
}

// accept waits for a place before it accepts: when all are taken, peers wait in the kernel's queue.
func (f *front) accept(l net.Listener) error {
	for {
		select {
		case f.places <- struct{}{}:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
		c, err := l.Accept()
		if err == nil {
			f.wg.Go(func() { f.route(&routed{Conn: eagerio.Conn(c), places: f.places}) })
			continue
		}
		<-f.places
		if !acceptAgain(err) {
			return err
		}
		select {
		case <-time.After(backoffMin):
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
}

// acceptAgain tells errors of one connection, or of a moment without descriptors or memory, from the end of the listener.
func acceptAgain(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// route finds out what a connection speaks and hands it over.
func (f *front) route(c *routed) {
	stop := context.AfterFunc(f.ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(routeTimeout))
	var (
		ready  net.Conn = c
		speaks string
		err    error
	)
	if f.tls == nil {
		speaks, err = c.protocol()
	} else {
		secured := tls.Server(c, f.tls)
		err = secured.HandshakeContext(f.ctx)
		speaks = secured.ConnectionState().NegotiatedProtocol
		ready = secured
	}
	if err == nil && speaks == pipeProtocol {
		err = f.t.arrivals.take(ready)
		if err == nil {
			return // it belongs to its stream now
		}
	}
	if err != nil || c.SetDeadline(time.Time{}) != nil || !stop() {
		_ = c.Close()
		return
	}
	if speaks == "h2" {
		f.grpc.Give(ready)
	} else {
		f.http.Give(ready)
	}
}

// routed is a connection that serves what was looked at, and gives its place back once.
type routed struct {
	net.Conn
	head   []byte // looked at, not read yet; of the one who reads
	places chan struct{}
	once   sync.Once
}

// protocol reads until it can tell, in the words of ALPN; no method of HTTP/1 begins with PRI or shm.
func (c *routed) protocol() (string, error) {
	const decided = 3
	buf := make([]byte, decided)
	for n := 0; ; {
		m, err := c.Conn.Read(buf[n:])
		n += m
		c.head = buf[:n]
		speaks := "http/1.1"
		switch {
		case strings.HasPrefix("PRI", string(c.head)):
			speaks = "h2"
		case strings.HasPrefix(pipePreface[:decided], string(c.head)):
			speaks = pipeProtocol
		}
		if n == decided || speaks == "http/1.1" {
			return speaks, nil
		}
		if err != nil {
			return "", err
		}
	}
}

func (c *routed) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *routed) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places })
	return err
}
