package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	etcdgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/pkg/handover"
)

// gatewayPath is where the JSON API is; gatewayBetaPath is its name of old.
const (
	gatewayPath     = "/v3/"
	gatewayBetaPath = "/v3beta/"
)

// Gateway is the API of a Server as JSON over HTTP: etcd's gRPC-gateway.
//
// Each request is a call of a gRPC server of the gateway's own, over one HTTP/2
// connection that is a pipe inside the process: so it is decoded, bounded,
// checked and counted as any other call, its metadata is what the HTTP request
// carried, and it carries no client certificate. Being a server of its own lets
// the calls of gRPC's clients and those of HTTP end one after the other.
//
// Goroutines: Serve of the gRPC server; per WebSocket one that reads it.
type Gateway struct {
	mux        *runtime.ServeMux
	server     *grpc.Server
	conns      *handover.Listener
	client     *grpc.ClientConn
	served     chan error // of server
	sockets    sockets    // outlive the HTTP server's Shutdown
	messageMax int64      // of JSON, in bytes
	requests   gatewayRequests
}

// NewGateway returns the gateway of s and starts its gRPC server, which takes
// extra options as NewGRPCServer does. Close ends it.
func NewGateway(s *Server, extra ...grpc.ServerOption) (*Gateway, error) {
	g := &Gateway{
		server:     s.NewGRPCServer(append([]grpc.ServerOption{grpc.Creds(FrontCredentials())}, extra...)...),
		conns:      handover.New(gatewayAddr{}),
		served:     make(chan error, 1),
		messageMax: int64(s.opts.MaxRequestBytes+grpcOverheadBytes) * gatewayJSONFactor,
	}
	g.mux = newGatewayMux(g.messageMax)
	var err error
	g.client, err = grpc.NewClient("passthrough:///gateway",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(g.dial), grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxSendBytes)))
	if err != nil {
		return nil, fmt.Errorf("connect the gateway: %w", err)
	}
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		etcdgw.RegisterKVHandler, etcdgw.RegisterWatchHandler, etcdgw.RegisterLeaseHandler,
		etcdgw.RegisterClusterHandler, etcdgw.RegisterMaintenanceHandler, etcdgw.RegisterAuthHandler,
		lockgw.RegisterLockHandler, electiongw.RegisterElectionHandler,
	} {
		if err := register(context.Background(), g.mux, g.client); err != nil {
			return nil, errors.Join(fmt.Errorf("register a service with the gateway: %w", err), g.client.Close())
		}
	}
	go func() { g.served <- g.server.Serve(g.conns) }()
	return g, nil
}

// dial makes the gateway's connection to its server.
func (g *Gateway) dial(context.Context, string) (net.Conn, error) {
	here, there := net.Pipe()
	g.conns.Give(&gatewayPipe{there, &g.requests})
	return here, nil
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isSocket(r) {
		g.serveSocket(w, r)
		return
	}
	g.answer(w, r, dropHTTP(w))
}

// Close cuts off the requests that are still under way, and returns when the
// goroutines have ended. The HTTP servers should have been shut down before.
func (g *Gateway) Close() error {
	err := g.client.Close()
	g.server.Stop()
	g.sockets.close()
	served := <-g.served
	if errors.Is(served, grpc.ErrServerStopped) { // before it began
		served = nil
	}
	return errors.Join(err, served)
}

// canonicalPath is the path under which a path of old is served now.
func canonicalPath(path string) string {
	if rest, ok := strings.CutPrefix(path, gatewayBetaPath); ok {
		return gatewayPath + rest
	}
	return path
}

// gatewayAddr is the address of the gateway's pipe.
type gatewayAddr struct{}

func (gatewayAddr) Network() string { return "pipe" }
func (gatewayAddr) String() string  { return "gateway" }
