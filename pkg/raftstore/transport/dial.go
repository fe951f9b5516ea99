package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// serviceName is the gRPC service of the peer port. etcd has none there, so its members and ours cannot take each other for one of their own.
const serviceName = "shim.Peer"

const callMethod = "/" + serviceName + "/Call"

// address is where a peer URL leads.
type address struct {
	network, address string // of net.Dial
	host             string // what the peer's certificate must be for
	secure           bool
}

func parseURL(raw string) (address, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return address{}, fmt.Errorf("peer URL: %w", err)
	}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return address{}, fmt.Errorf("peer URL %s has no host", raw)
		}
		return address{"tcp", u.Host, u.Host, u.Scheme == "https"}, nil
	case "unix", "unixs":
		return address{"unix", u.Host + u.Path, "localhost", u.Scheme == "unixs"}, nil
	}
	return address{}, fmt.Errorf("peer URL %s: unknown scheme", raw)
}

// newConn is a connection to be made by its first stream. It does not try by itself a second time: links do that.
func (t *Transport) newConn(raw string) (*grpc.ClientConn, error) {
	a, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if a.secure {
		if t.o.ClientTLS == nil {
			return nil, errors.New("peer URL asks for TLS, and there is no client configuration for it")
		}
		creds = credentials.NewTLS(t.o.ClientTLS())
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return t.o.Dial(ctx, a.network, a.address) }
	cc, err := grpc.NewClient("passthrough:///"+a.host,
		grpc.WithContextDialer(dial), grpc.WithNoProxy(),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(t.o.MessageBytesMax+frameSlackBytes),
			grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: t.o.DialTimeout}),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(), grpc.WithIdleTimeout(0),
		// Fixed windows: otherwise gRPC pings the peer whenever data comes, to measure the bandwidth.
		grpc.WithStaticStreamWindowSize(clientWindowBytes), grpc.WithStaticConnWindowSize(clientWindowBytes),
		grpc.WithSharedWriteBuffer(true),
		grpc.WithMaxHeaderListSize(headerBytesMax),
		grpc.WithUserAgent("shim/"+t.o.Version),
		// For snapshots, whose connections nobody probes.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAliveInterval, Timeout: keepAliveTimeout}),
	)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", raw, err)
	}
	return cc, nil
}

// newStream opens a lane to the member to. It returns before that has answered.
func (t *Transport) newStream(ctx context.Context, cc *grpc.ClientConn, which lane, to uint64) (grpc.ClientStream, error) {
	desc := &grpc.StreamDesc{StreamName: which.String(), ClientStreams: true, ServerStreams: true}
	return cc.NewStream(metadata.NewOutgoingContext(ctx, t.introduce(to)), desc, "/"+serviceName+"/"+which.String())
}
