package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// endpoint is one address of the service.
type endpoint struct {
	addr, serverName string
	scheme           string // "" when there was none
}

// parseEndpoint takes what etcd's clients take: http and https URLs, unix and unixs sockets, and addresses alone.
func parseEndpoint(s string) endpoint {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		if scheme, rest, ok = strings.Cut(s, ":"); ok && (scheme == "unix" || scheme == "unixs") {
			return endpoint{addr: "unix:" + rest, serverName: path.Base(rest), scheme: scheme}
		}
		return endpoint{addr: s, serverName: s}
	}
	if scheme == "unix" || scheme == "unixs" {
		return endpoint{addr: "unix:" + rest, serverName: path.Base(rest), scheme: scheme}
	}
	if u, err := url.Parse(s); err == nil {
		return endpoint{addr: u.Host, serverName: u.Host, scheme: scheme}
	}
	return endpoint{addr: s, serverName: s}
}

// dial connects to all endpoints; calls go to those that answer, in turn. As in etcd's clients, the first endpoint's scheme decides
// about TLS for all: http is without, https with, and the others have it when the flags ask for it.
func (o *Options) dial() (*grpc.ClientConn, error) {
	creds, err := o.credentials(parseEndpoint(o.Endpoints[0]).scheme)
	if err != nil {
		return nil, err
	}
	r := manual.NewBuilderWithScheme("discovery")
	var state resolver.State
	for _, e := range o.Endpoints {
		p := parseEndpoint(e)
		state.Addresses = append(state.Addresses, resolver.Address{Addr: p.addr, ServerName: p.serverName})
	}
	r.InitialState(state)
	return grpc.NewClient("discovery:///"+parseEndpoint(o.Endpoints[0]).serverName,
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: o.DialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: o.KeepAliveTime, Timeout: o.KeepAliveTimeout}),
	)
}

func (o *Options) credentials(scheme string) (credentials.TransportCredentials, error) {
	flagged := o.CertFile != "" || o.CAFile != "" || !o.Insecure || o.InsecureSkipVerify
	if scheme == "http" || !flagged && scheme != "https" && scheme != "unixs" {
		return insecure.NewCredentials(), nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureSkipVerify}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", o.CertFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("load trusted CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load trusted CA file %s: no certificate in it", o.CAFile)
		}
	}
	return credentials.NewTLS(c), nil
}

// login gets the token of a user. A service without authentication takes anybody.
func (o *Options) login(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	if o.User == "" || o.Password == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	resp, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: o.User, Password: o.Password}, grpc.WaitForReady(true))
	if err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCAuthNotEnabled).Message() {
		return "", nil
	}
	if err != nil {
		return "", errors.New(status.Convert(err).Message())
	}
	return resp.Token, nil
}

// withToken adds a user's token to the calls made with ctx.
func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}
