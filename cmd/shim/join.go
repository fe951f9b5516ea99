package main

import (
	"context"
	"log/slog"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// fetchMembers asks the members of a running cluster who they are. Their
// certificates have to be for serverName; "" is the host of each URL.
func fetchMembers(l *listeners, serverName string) membership.FetchMembers {
	return func(ctx context.Context, urls []string) (types.ID, []membership.Member, error) {
		var o transport.FetchOptions
		if l.peerTLS != nil {
			o.TLS = l.peerTLS.ClientConfig(serverName)
		}
		got, err := transport.FetchMembers(ctx, urls, o)
		if err != nil {
			return 0, nil, err
		}
		members, err := membership.DecodeMembers(got.JSON)
		return types.ID(got.Cluster), members, err
	}
}

// logRemoved says what etcd says when a member ends because it was removed.
func logRemoved(log *slog.Logger) {
	log.Warn("server error", "error", raftstore.ErrRemoved)
	log.Warn("data-dir used by this member must be removed")
}
