package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The metadata of every stream and call, in both directions; the names are those of etcd's headers, where it has one.
const (
	keyCluster  = "x-etcd-cluster-id"
	keyFrom     = "x-server-from"
	keyTo       = "x-raft-to"
	keyVersion  = "x-server-version"
	keyURLs     = "x-peerurls"
	keyProtocol = "x-shim-protocol"
	keyCall     = "x-shim-call"
)

// identity is who the other side says it is, and whom it takes this side for. IDs that are missing or no IDs are 0.
type identity struct {
	from, to, cluster uint64
	protocol, version string
	pipe              string // the token of a lane's pipe
	urls              []string
}

func readIdentity(md metadata.MD) identity {
	one := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	id := func(key string) uint64 {
		n, err := types.IDFromString(one(key))
		if err != nil {
			return 0
		}
		return uint64(n)
	}
	i := identity{from: id(keyFrom), to: id(keyTo), cluster: id(keyCluster), protocol: one(keyProtocol), version: one(keyVersion), pipe: one(keyPipe)}
	if urls := one(keyURLs); urls != "" {
		i.urls = strings.Split(urls, ",")
	}
	return i
}

// introduce is what this member says of itself to the member to.
func (t *Transport) introduce(to uint64) metadata.MD {
	return metadata.Pairs(
		keyCluster, types.ID(t.o.Cluster).String(), keyFrom, types.ID(t.o.Member).String(), keyTo, types.ID(to).String(),
		keyVersion, t.o.Version, keyProtocol, protocolVersion, keyURLs, strings.Join(*t.urls.Load(), ","),
	)
}

// check compares what does not need the membership.
func (t *Transport) check(i identity) error {
	switch {
	case i.protocol != protocolVersion:
		return ErrIncompatible
	case i.cluster != t.o.Cluster:
		return ErrClusterMismatch
	case i.to != t.o.Member:
		return ErrWrongMember
	case i.from == 0 || i.from == t.o.Member:
		return ErrUnknownMember
	}
	return nil
}

// admit is the check of an incoming stream or call. A refusal is an event.
func (t *Transport) admit(ctx context.Context) (identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	i := readIdentity(md)
	err := t.check(i)
	if err == nil {
		err = t.h.Refuses(i.from)
	}
	if err != nil {
		t.refused(Refused{From: types.ID(i.from), Cluster: types.ID(i.cluster), Err: err})
		return i, toStatus(err)
	}
	return i, nil
}

// headed is a stream of ours after its header was asked for.
type headed interface {
	Header() (metadata.MD, error)
	RecvMsg(any) error
}

// acknowledged waits until the other side has accepted a stream to the member id, and checks who it is.
func (t *Transport) acknowledged(s headed, id uint64) (identity, error) {
	md, err := s.Header()
	i := readIdentity(md)
	if err == nil && i.from == 0 {
		// Refused: the status comes instead of a message. Anything else is not a member.
		if err = s.RecvMsg(new(frame)); err == nil {
			err = ErrIncompatible
		}
	}
	if err != nil {
		return i, fromStatus(err)
	}
	if err := t.check(i); err != nil {
		return i, err
	}
	if i.from != id {
		return i, fmt.Errorf("%w: member %s answers", ErrWrongMember, types.ID(i.from))
	}
	return i, nil
}

// text is an error without the words that gRPC puts around a status.
func text(err error) error {
	if st, ok := status.FromError(err); ok && st.Err() != nil {
		return errors.New(st.Message())
	}
	return err
}
