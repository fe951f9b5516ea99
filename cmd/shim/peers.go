package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// connect makes the transport that joins this member with the others. It sends
// from now on; servePeers lets the others in.
func (m *member) connect(l *listeners, serverName string) func(member, clusterID uint64, h transport.Handler) (raftstore.Peers, error) {
	return func(member, clusterID uint64, h transport.Handler) (raftstore.Peers, error) {
		election := time.Duration(m.c.ElectionMs) * time.Millisecond
		o := transport.Options{
			Member: member, Cluster: clusterID, Version: version.Version,
			ProbeInterval: election / 2, ProbeTimeout: election,
			Registerer: m.metrics,
			OnEvent:    m.logPeerEvent,
			HTTP:       http.HandlerFunc(m.answerPeers),
		}
		if l.peerTLS != nil {
			o.ClientTLS = func() *tls.Config { return l.peerTLS.ClientConfig(serverName) }
		}
		secure, plain := l.peerSchemes()
		switch {
		case secure && plain:
			return nil, errors.New("--listen-peer-urls has http and https: the addresses for members have to be of one kind")
		case secure:
			o.ServerTLS = l.peerTLS.ServerConfig(true, true, nil)
		}
		t, err := transport.New(o, h)
		if err != nil {
			return nil, err
		}
		m.transport = t
		return t, nil
	}
}

// peerSchemes says which kinds of addresses there are for members.
func (l *listeners) peerSchemes() (secure, plain bool) {
	for _, b := range l.bound {
		if b.purpose == forPeers {
			secure, plain = secure || etcdapi.Secure(b.url), plain || !etcdapi.Secure(b.url)
		}
	}
	return secure, plain
}

// servePeers accepts other members on the addresses for them. The transport ends
// with the store, and closes them.
func (m *member) servePeers(l *listeners) {
	for _, b := range l.bound {
		if b.purpose != forPeers {
			continue
		}
		m.log.Info("serving peer traffic", "address", b.url.String())
		go func() {
			if err := m.transport.Serve(b.Listener); err != nil {
				m.peerFailed <- fmt.Errorf("listen for members on %s: %w", b.url.String(), err)
			}
		}()
	}
}

// answerPeers answers what is neither gRPC nor the transport's own on the
// addresses for members: the health checks.
func (m *member) answerPeers(w http.ResponseWriter, r *http.Request) {
	if h := m.peerHTTP.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, "starting", http.StatusServiceUnavailable)
}

func (m *member) logPeerEvent(e transport.Event) {
	level := slog.LevelWarn
	switch x := e.(type) {
	case transport.Connected:
		level = slog.LevelInfo
	case transport.SnapshotDone:
		if x.Err == nil {
			level = slog.LevelInfo
		}
	}
	m.log.Log(bg, level, e.String())
}
