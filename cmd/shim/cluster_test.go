package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
)

func mustParse(t *testing.T, args ...string) *Config {
	t.Helper()
	c, _, err := parse(args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDiscoveryFlags(t *testing.T) {
	c := mustParse(t, "--discovery-token=t", "--discovery-endpoints=https://b:1,https://a:1", "--discovery-dial-timeout=1s", "--discovery-request-timeout=2s",
		"--discovery-keepalive-time=3s", "--discovery-keepalive-timeout=4s", "--discovery-insecure-transport=false", "--discovery-insecure-skip-tls-verify",
		"--discovery-cert=c", "--discovery-key=k", "--discovery-cacert=ca", "--discovery-user=u", "--discovery-password=p")
	o := c.Discovery.options()
	if o.Token != "t" || strings.Join(o.Endpoints, " ") != "https://a:1 https://b:1" || o.DialTimeout != time.Second || o.RequestTimeout != 2*time.Second ||
		o.KeepAliveTime != 3*time.Second || o.KeepAliveTimeout != 4*time.Second || o.Insecure || !o.InsecureSkipVerify ||
		o.CertFile != "c" || o.KeyFile != "k" || o.CAFile != "ca" || o.User != "u" || o.Password != "p" || c.InitialCluster != "" {
		t.Errorf("%+v", o)
	}
	file := filepath.Join(t.TempDir(), "etcd.yaml")
	if err := os.WriteFile(file, []byte(`
discovery-config:
  client:
    endpoints: ["http://a:1"]
    request-timeout: 7000000000
    secure: {cacert: ca}
    auth: {username: u, password: p}
  token: t
max-learners: 3
strict-reconfig-check: false
peer-transport-security: {skip-client-san-verification: true}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c = mustParse(t, "--config-file="+file)
	o = c.Discovery.options()
	if o.Token != "t" || len(o.Endpoints) != 1 || o.RequestTimeout != 7*time.Second || o.DialTimeout != 2*time.Second || !o.Insecure ||
		o.CAFile != "ca" || o.User != "u" || o.Password != "p" || c.InitialCluster != "" {
		t.Errorf("%+v", o)
	}
	if c.MaxLearners != 3 || c.StrictReconfigCheck || c.PeerTLS.VerifyClientAddress {
		t.Errorf("%+v", c)
	}
	if c = DefaultConfig(); c.MaxLearners != 1 || !c.StrictReconfigCheck {
		t.Errorf("%+v", c)
	}
	for args, want := range map[string]string{
		"--discovery-endpoints=http://a:1":                                               "both --discovery-token and --discovery-endpoints must be set",
		"--discovery-token=t --discovery-endpoints=http://a:1,":                          "--discovery-endpoints must not contain empty endpoints",
		"--discovery-token=t --discovery-endpoints=http://a:1 --discovery-srv=x":         "multiple discovery or bootstrap flags are set",
		"--discovery-token=t --discovery-endpoints=http://a:1 --initial-cluster=a=b":     "multiple discovery or bootstrap flags are set",
		"--discovery-token=t --discovery-endpoints=http://a:1 --discovery-key=somewhere": "KeyFile and CertFile must both be present",
	} {
		if _, _, err := parse(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestClusterOfFlags(t *testing.T) {
	c := mustParse(t, "--name=a", "--initial-cluster=a=http://a:1,b=http://b:1", "--initial-cluster-token=t")
	cluster, token, err := c.cluster(t.Context(), slog.New(slog.DiscardHandler))
	if cluster != "a=http://a:1,b=http://b:1" || token != "t" || err != nil {
		t.Errorf("%s, %s, %v", cluster, token, err)
	}
	c = mustParse(t, "--discovery-token=t", "--discovery-endpoints=http://a:1", "--initial-cluster-state=existing")
	if _, _, err = c.cluster(t.Context(), slog.New(slog.DiscardHandler)); err == nil || err.Error() != "discovery URL should not be set when joining existing initial cluster" {
		t.Error(err)
	}
	c = mustParse(t, "--initial-cluster=")
	if _, _, err = c.cluster(t.Context(), slog.New(slog.DiscardHandler)); err == nil || err.Error() != `couldn't find local name "default" in the initial cluster configuration` {
		t.Error(err)
	}
	c = mustParse(t, "--discovery-srv=example.com")
	for cluster, want := range map[string]string{"a=https://a:1": "example.com", "a=http://a:1": ""} {
		if got := c.peerServerName(cluster); got != want {
			t.Errorf("%s: %q", cluster, got)
		}
	}
	c.PeerTLS.TrustedCAFile = "ca"
	if got := c.peerServerName("a=https://a:1"); got != "" {
		t.Errorf("with a CA: %q", got)
	}
}

// TestClusterByService: three configurations find each other through a running
// shim, and a process starts from what it found.
func TestClusterByService(t *testing.T) {
	service := start(t, filepath.Join(t.TempDir(), "service"))
	client := service.dial()
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/_etcd/registry/three/_config/size", "3")
	put("/_etcd/registry/one/_config/size", "1")
	flags := []string{"--discovery-endpoints=http://" + service.client}

	var wg sync.WaitGroup
	found := make([]membership.Start, 3)
	for i, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			url := "http://" + name + ":1"
			c, _, err := parse(append(flags, "--discovery-token=three", "--name="+name, "--initial-advertise-peer-urls="+url), nil)
			if err != nil {
				t.Error(err)
				return
			}
			cluster, token, err := c.cluster(t.Context(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			found[i], err = membership.Bootstrap(t.Context(), membership.Flags{Name: name, InitialCluster: cluster, Token: token, PeerURLs: []string{url}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids := map[types.ID]bool{}
	for _, s := range found {
		ids[s.Self.ID] = true
		if s.ClusterID != found[0].ClusterID || len(s.Members) != 3 {
			t.Errorf("%+v", s)
		}
	}
	if len(ids) != 3 {
		t.Errorf("members %v", ids)
	}

	p := start(t, filepath.Join(t.TempDir(), "one"), append(flags, "--discovery-token=one")...)
	members, err := p.dial().MemberList(context.Background())
	if err != nil || len(members.Members) != 1 {
		t.Fatalf("%v, %v", members, err)
	}
	kvs, err := client.Get(t.Context(), "/_etcd/registry/one/members/"+types.ID(members.Members[0].ID).String())
	if err != nil || len(kvs.Kvs) != 1 || string(kvs.Kvs[0].Value) != "test="+members.Members[0].PeerURLs[0] {
		t.Errorf("%v, %v", kvs, err)
	}
}
