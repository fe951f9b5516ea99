package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/discovery"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
)

// discoveryConfig says how to reach the discovery service, in the layout of
// etcd's configuration file. Durations are nanoseconds there.
type discoveryConfig struct {
	Client struct {
		Endpoints        []string      `json:"endpoints"`
		RequestTimeout   time.Duration `json:"request-timeout"`
		DialTimeout      time.Duration `json:"dial-timeout"`
		KeepAliveTime    time.Duration `json:"keepalive-time"`
		KeepAliveTimeout time.Duration `json:"keepalive-timeout"`
		Secure           struct {
			Cert               string `json:"cert"`
			Key                string `json:"key"`
			CACert             string `json:"cacert"`
			InsecureTransport  bool   `json:"insecure-transport"`
			InsecureSkipVerify bool   `json:"insecure-skip-tls-verify"`
		} `json:"secure"`
		Auth struct {
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auth"`
	} `json:"client"`
	Token string `json:"token"`
}

func defaultDiscovery() discoveryConfig {
	var d discoveryConfig
	d.Client.DialTimeout, d.Client.RequestTimeout = discovery.DialTimeoutDefault, discovery.RequestTimeoutDefault
	d.Client.KeepAliveTime, d.Client.KeepAliveTimeout = discovery.KeepAliveTimeDefault, discovery.KeepAliveTimeoutDefault
	d.Client.Secure.InsecureTransport = true
	return d
}

func (d *discoveryConfig) options() discovery.Options {
	return discovery.Options{
		Endpoints: d.Client.Endpoints, Token: d.Token,
		DialTimeout: d.Client.DialTimeout, RequestTimeout: d.Client.RequestTimeout,
		KeepAliveTime: d.Client.KeepAliveTime, KeepAliveTimeout: d.Client.KeepAliveTimeout,
		CertFile: d.Client.Secure.Cert, KeyFile: d.Client.Secure.Key, CAFile: d.Client.Secure.CACert,
		Insecure: d.Client.Secure.InsecureTransport, InsecureSkipVerify: d.Client.Secure.InsecureSkipVerify,
		User: d.Client.Auth.Username, Password: d.Client.Auth.Password,
	}
}

func (c *Config) validateCluster() error {
	if c.ClusterState != clusterNew && c.ClusterState != clusterExisting {
		return fmt.Errorf("unexpected clusterState %q", c.ClusterState)
	}
	if c.DiscoveryFallback == "proxy" {
		return errors.New(`v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`)
	}
	if len(c.clusterSources()) > 1 {
		return errors.New("multiple discovery or bootstrap flags are set. " +
			`Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)
	}
	if (c.Discovery.Token != "") != c.discovers() {
		return errors.New("both --discovery-token and --discovery-endpoints must be set")
	}
	if c.discovers() {
		o := c.Discovery.options()
		return o.Validate()
	}
	return nil
}

// discovers says whether a discovery service is to be asked.
func (c *Config) discovers() bool { return len(c.Discovery.Client.Endpoints) > 0 }

// clusterSources are the settings that say where the cluster is described.
func (c *Config) clusterSources() []string {
	var s []string
	if c.InitialCluster != "" {
		s = append(s, "initial-cluster")
	}
	if c.DiscoverySRV != "" {
		s = append(s, "discovery-srv")
	}
	if c.discovers() {
		s = append(s, "discovery-endpoints")
	}
	return s
}

// cluster is the initial cluster, as name=URL,..., of a member that starts for
// the first time, and the token that its IDs are made of. With DNS or the
// discovery service it asks there, and waits for as long as they need.
func (c *Config) cluster(ctx context.Context, log *slog.Logger) (cluster, token string, err error) {
	switch {
	case c.discovers():
		if c.ClusterState == clusterExisting {
			return "", "", errors.New("discovery URL should not be set when joining existing initial cluster")
		}
		cluster, err = c.joinByService(ctx, log)
		return cluster, c.Discovery.Token, err
	case c.DiscoverySRV != "":
		if cluster, err = discovery.SRV(c.Name, c.DiscoverySRV, c.DiscoverySRVName, c.AdvertisePeerURLs); err != nil {
			return "", "", fmt.Errorf("error setting up initial cluster: %w", err)
		}
		log.Info("got bootstrap from DNS for etcd-server", "discovery-srv", c.DiscoverySRV, "initial-cluster", cluster)
		return cluster, c.InitialClusterToken, nil
	}
	if c.InitialCluster == "" {
		return "", "", fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	return c.InitialCluster, c.InitialClusterToken, nil
}

// joinByService registers this member alone, and answers with all of them.
func (c *Config) joinByService(ctx context.Context, log *slog.Logger) (string, error) {
	self := types.URLsMap{c.Name: c.AdvertisePeerURLs}.String()
	start, err := membership.Bootstrap(ctx, membership.Flags{Name: c.Name, InitialCluster: self, Token: c.Discovery.Token, PeerURLs: urlStrings(c.AdvertisePeerURLs)})
	if err != nil {
		return "", err
	}
	log = log.With("discovery-token", c.Discovery.Token, "discovery-endpoints", c.Discovery.Client.Endpoints)
	log.Info("Bootstrapping cluster using v3 discovery.")
	o := c.Discovery.options()
	o.OnEvent = func(e discovery.Event) {
		level := slog.LevelInfo
		switch e.(type) {
		case discovery.Retrying, discovery.Ignored:
			level = slog.LevelWarn
		}
		log.Log(ctx, level, e.String())
	}
	cluster, err := discovery.Join(ctx, o, start.Self.ID, self)
	if err != nil {
		if errors.Is(err, discovery.ErrFullCluster) {
			log.Warn("do not reuse discovery token; generate a new one to bootstrap a cluster")
		}
		return "", err
	}
	urls, err := types.NewURLsMap(cluster)
	if err != nil {
		return "", err
	}
	all := urls.URLs() // sorted
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			return "", fmt.Errorf("discovery cluster %s has duplicate url", urls)
		}
	}
	return cluster, nil
}

// peerServerName is the name that other members' certificates have to be for
// when the cluster was found by DNS and no CA is given: the domain, as in etcd.
// "" is the host of each URL.
func (c *Config) peerServerName(initialCluster string) string {
	if c.DiscoverySRV != "" && c.PeerTLS.TrustedCAFile == "" && strings.Contains(initialCluster, "https://") {
		return c.DiscoverySRV
	}
	return ""
}
