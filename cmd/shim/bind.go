package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/etcdapi"
)

// purpose is what an address is for.
type purpose int

const (
	forClients purpose = iota // gRPC, and HTTP unless that has addresses of its own
	forHTTP                   // --listen-client-http-urls
	forMetrics                // --listen-metrics-urls, from the beginning
	forPeers                  // --listen-peer-urls
)

// bound is one address.
type bound struct {
	net.Listener
	url     url.URL
	purpose purpose
}

// listeners are all addresses of the process, bound and not yet served, and the
// TLS of the two kinds.
type listeners struct {
	bound              []bound
	clientTLS, peerTLS *etcdapi.TLS // nil without certificates
	unusedTLS          bool         // clients' certificates are given, and no address is for them: as with etcd nobody reads the files
}

// bind prepares TLS and binds every address, or none.
func bind(ctx context.Context, c *Config, log *slog.Logger) (*listeners, error) {
	l := &listeners{}
	if err := l.open(ctx, c, log); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *listeners) open(ctx context.Context, c *Config, log *slog.Logger) (err error) {
	clientURLs := slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs)
	l.unusedTLS = !c.ClientTLS.Empty() && !slices.ContainsFunc(slices.Concat(clientURLs, c.ListenMetricsURLs), etcdapi.Secure)
	if !l.unusedTLS {
		if l.clientTLS, err = openTLS(c, c.ClientTLS, "client", c.ClientAutoTLS, clientURLs, log); err != nil {
			return err
		}
	}
	if l.peerTLS, err = openTLS(c, c.PeerTLS, "peer", c.PeerAutoTLS, c.ListenPeerURLs, log); err != nil {
		return err
	}
	ofHTTP := make(map[string]bool)
	for _, u := range c.ListenClientHTTPURLs {
		ofHTTP[u.Host+u.Path] = true
	}
	for _, u := range c.ListenClientURLs {
		if ofHTTP[u.Host+u.Path] {
			return fmt.Errorf("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url %s", u.String())
		}
	}
	for _, set := range []struct {
		purpose purpose
		urls    []url.URL
	}{
		{forPeers, c.ListenPeerURLs}, {forClients, c.ListenClientURLs},
		{forHTTP, c.ListenClientHTTPURLs}, {forMetrics, c.ListenMetricsURLs},
	} {
		for _, u := range set.urls {
			if err = l.add(ctx, c, u, set.purpose, log); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *listeners) add(ctx context.Context, c *Config, u url.URL, p purpose, log *slog.Logger) error {
	material := l.tls(p)
	switch {
	case etcdapi.Secure(u) && material == nil:
		return fmt.Errorf("TLS key/cert must be provided for url %s with HTTPS scheme", u.String())
	case !etcdapi.Secure(u) && p != forMetrics && (material != nil || l.unusedTLS && p != forPeers):
		log.Warn("scheme is http or unix while key and cert files are present; ignoring key and cert files", "url", u.String())
	}
	ln, err := etcdapi.Listen(ctx, u, etcdapi.ListenOptions(c.SocketOpts))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", u.String(), err)
	}
	l.bound = append(l.bound, bound{ln, u, p})
	return nil
}

func (l *listeners) tls(p purpose) *etcdapi.TLS {
	if p == forPeers {
		return l.peerTLS
	}
	return l.clientTLS
}

func (l *listeners) close() {
	for _, b := range l.bound {
		_ = b.Close()
	}
}

// openTLS reads the certificates of one kind of address, or makes them.
func openTLS(c *Config, o etcdapi.TLSOptions, kind string, auto bool, urls []url.URL, log *slog.Logger) (*etcdapi.TLS, error) {
	switch {
	case auto && !o.Empty():
		log.Warn("ignoring auto TLS since certs given", "kind", kind)
	case auto:
		hosts := make([]string, len(urls))
		for i, u := range urls {
			hosts[i] = u.Host
		}
		var err error
		o.CertFile, o.KeyFile, err = etcdapi.SelfCert(filepath.Join(c.Dir, "fixtures", kind), hosts, c.SelfSignedCertValidity, time.Now())
		if err != nil {
			return nil, fmt.Errorf("get %s self-signed certs: %w", kind, err)
		}
		o.SelfSigned = true
	}
	if o.Empty() {
		return nil, nil
	}
	t, err := etcdapi.NewTLS(o, func(err error) {
		if err != nil {
			log.Warn("certificate files changed and cannot be used; going on with the last good ones", "kind", kind, "error", err)
			return
		}
		log.Info("certificate files changed and are in use", "kind", kind)
	})
	if err != nil {
		return nil, fmt.Errorf("%s TLS: %w", kind, err)
	}
	return t, nil
}

// endpoints says what each address for clients serves.
func (l *listeners) endpoints(server, patient *grpc.Server, client http.Handler) []etcdapi.Endpoint {
	split := false
	for _, b := range l.bound {
		split = split || b.purpose == forHTTP
	}
	endpoints := make([]etcdapi.Endpoint, 0, len(l.bound))
	for _, b := range l.bound {
		e := l.endpoint(b)
		switch b.purpose {
		case forPeers, forMetrics:
			continue // the transport's, and those of probes

		case forClients:
			e.GRPC = server
			if !split {
				e.HTTP = client
			}
			if !split && e.TLS != nil {
				e.GRPC = patient
			}
		case forHTTP:
			e.HTTP = client
		}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

// probes serves handler on each address for metrics.
func (l *listeners) probes(handler http.Handler) (endpoints []etcdapi.Endpoint) {
	for _, b := range l.bound {
		if b.purpose == forMetrics {
			e := l.endpoint(b)
			e.HTTP = handler
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}

func (l *listeners) endpoint(b bound) etcdapi.Endpoint {
	e := etcdapi.Endpoint{Listener: b.Listener}
	if etcdapi.Secure(b.url) {
		e.TLS = l.tls(b.purpose)
	}
	return e
}
