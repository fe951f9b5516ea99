package etcdapi

import (
	"context"
	"crypto/x509"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/auth/token"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// gatewayMetadata is what a JSON gateway adds to a call. The certificate of its connection is the gateway's own.
const gatewayMetadata = "grpcgateway-accept"

// caller is who makes a call, and the View that knows of it.
type caller struct {
	auth.Info
	view *mvcc.View
}

// identify finds out who makes a call: the user of its token, or else the one whom the client's certificate names, or else nobody. The
// View is v, or a later one if the token is of a login that v does not know yet. With auth off everybody is nobody.
func (s *Server) identify(ctx context.Context, v *mvcc.View) (caller, error) {
	c := caller{view: v}
	if !v.Auth().Enabled() {
		return c, nil
	}
	t, ok := tokenOf(ctx)
	if !ok {
		if s.opts.ClientCertAuth {
			c.Info = certificateUser(ctx, v.Auth().Revision())
		}
		return c, nil
	}
	if s.opts.Tokens.Index(t) > v.Index() {
		// Who has the token has had the answer to its login, so that a read index is behind it. If there is none the token is not known.
		if later, err := s.store.ReadView(ctx); err == nil {
			c.view = later
		}
	}
	if c.Info, ok = s.opts.Tokens.Info(t, c.view.Auth().Revision()); !ok {
		return c, token.ErrInvalid
	}
	return c, nil
}

// tokenOf is the token of a call: that of etcd's clients, or that of HTTP.
func tokenOf(ctx context.Context) (string, bool) {
	values := metadata.ValueFromIncomingContext(ctx, rpctypes.TokenFieldNameGRPC)
	if len(values) == 0 {
		values = metadata.ValueFromIncomingContext(ctx, rpctypes.TokenFieldNameSwagger)
	}
	if len(values) == 0 {
		return "", false
	}
	return strings.TrimPrefix(values[0], "Bearer "), true
}

// certificateUser is the user that the common name of the client's certificate is, at an auth revision.
func certificateUser(ctx context.Context, revision uint64) auth.Info {
	p, ok := peer.FromContext(ctx)
	if !ok || len(metadata.ValueFromIncomingContext(ctx, gatewayMetadata)) > 0 {
		return auth.Info{}
	}
	var chains [][]*x509.Certificate
	switch info := p.AuthInfo.(type) {
	case tlsInfo:
		chains = info.State.VerifiedChains
	case credentials.TLSInfo:
		chains = info.State.VerifiedChains
	}
	for _, chain := range chains {
		if len(chain) > 0 {
			return auth.Info{Username: chain[0].Subject.CommonName, Revision: revision}
		}
	}
	return auth.Info{}
}

// permit checks that the caller of a read of v may do it, and answers the View to read from. It costs one comparison with auth off.
func (s *Server) permit(ctx context.Context, v *mvcc.View, check func(*mvcc.View, auth.Info) error) (*mvcc.View, error) {
	if !v.Auth().Enabled() {
		return v, nil
	}
	c, err := s.identify(ctx, v)
	if err == nil {
		err = check(c.view, c.Info)
	}
	if err == nil && c.Revision != 0 && c.Revision != c.view.Auth().Revision() {
		err = auth.ErrAuthOldRevision // a token of a revision that is still to come
	}
	return c.view, toGRPC(err)
}

func mayRange(r *pb.RangeRequest) func(*mvcc.View, auth.Info) error {
	return func(v *mvcc.View, i auth.Info) error { return v.Auth().CheckRange(i, r.GetKey(), r.GetRangeEnd()) }
}

// permitRange is permit for a range of keys.
func (s *Server) permitRange(ctx context.Context, v *mvcc.View, r *pb.RangeRequest) (*mvcc.View, error) {
	return s.permit(ctx, v, mayRange(r))
}

// permitList refuses, before it takes a place among the lists, who may not read
// a list. Whether it may when the list is read is asked again.
func (s *Server) permitList(ctx context.Context, serializable bool, check func(*mvcc.View, auth.Info) error) error {
	if _, err := s.permit(ctx, s.store.View(), check); err == nil {
		return nil
	}
	v, err := s.keysView(ctx, serializable) // this member may not know yet that it may
	if err == nil {
		_, err = s.permit(ctx, v, check)
	}
	return err
}

// requireUser refuses calls of nobody.
func (s *Server) requireUser(ctx context.Context) error {
	c, err := s.identify(ctx, s.store.View())
	if err == nil && c.view.Auth().Enabled() && c.Info == (auth.Info{}) {
		err = auth.ErrUserEmpty
	}
	return toGRPC(err)
}

// requireAdmin refuses who has not the role root.
func (s *Server) requireAdmin(ctx context.Context) error {
	c, err := s.identify(ctx, s.store.View())
	if err == nil {
		err = c.view.Auth().CheckAdmin(c.Info)
	}
	return toGRPC(err)
}

// sign puts who makes the call into its command.
func (s *Server) sign(ctx context.Context, w *write) error {
	c, err := s.identify(ctx, s.store.View())
	w.cmd.Auth = c.Info
	return toGRPC(err)
}
