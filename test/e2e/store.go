//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/internal/freeport"
	"github.com/kubeshim/shim/test/internal/peers"
)

// member is one server of the store. Its process is nil until it was started.
type member struct {
	*process
	name                  string
	dataDir               string
	client, peer, metrics int // ports, which one that replaces it takes over
}

func (m *member) clientURL() string { return fmt.Sprintf("https://127.0.0.1:%d", m.client) }
func (m *member) peerURL() string   { return fmt.Sprintf("https://127.0.0.1:%d", m.peer) }

// startStore forms a new cluster of members and waits until all are ready.
func (c *cluster) startStore() {
	c.t.Helper()
	for i := range c.layout.members {
		name := fmt.Sprintf("store-%d", i)
		c.members = append(c.members, &member{name: name, dataDir: filepath.Join(c.dir, name),
			client: freeport.Port(c.t), peer: freeport.Port(c.t), metrics: freeport.Port(c.t)})
	}
	for _, m := range c.members {
		c.launchMember(m, "new")
	}
	for _, m := range c.members {
		c.awaitMember(m)
	}
}

// launchMember starts a member, or after a kill restarts it, on its data dir.
func (c *cluster) launchMember(m *member, state string) {
	c.t.Helper()
	var all []string
	for _, o := range c.members {
		all = append(all, o.name+"="+o.peerURL())
	}
	m.process = start(c.t, c.dir, m.name, c.storePath,
		"--name="+m.name,
		"--data-dir="+m.dataDir,
		"--listen-client-urls="+m.clientURL(),
		"--advertise-client-urls="+m.clientURL(),
		"--listen-peer-urls="+m.peerURL(),
		"--initial-advertise-peer-urls="+m.peerURL(),
		"--initial-cluster="+strings.Join(all, ","),
		"--initial-cluster-state="+state,
		fmt.Sprintf("--listen-metrics-urls=http://127.0.0.1:%d", m.metrics),
		"--cert-file="+filepath.Join(c.dir, "server.crt"),
		"--key-file="+filepath.Join(c.dir, "server.key"),
		"--client-cert-auth=true",
		"--trusted-ca-file="+c.ca.certFile(),
		"--peer-cert-file="+filepath.Join(c.dir, "server.crt"),
		"--peer-key-file="+filepath.Join(c.dir, "server.key"),
		"--peer-client-cert-auth=true",
		"--peer-trusted-ca-file="+c.ca.certFile(),
		"--watch-progress-notify-interval=5s",
		"--feature-gates=InitialCorruptCheck=true",
	)
}

// awaitMember waits for the member's readiness probe.
func (c *cluster) awaitMember(m *member) {
	c.t.Helper()
	c.await(m.name, m.process, func(ctx context.Context) error {
		return getOK(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz", m.metrics))
	})
}

func (c *cluster) clientURLs() (urls []string) {
	for _, m := range c.members {
		urls = append(urls, m.clientURL())
	}
	return urls
}

// clientOf speaks to some members of the store, past the apiservers.
func (c *cluster) clientOf(members ...*member) *clientv3.Client {
	c.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "client.crt"), filepath.Join(c.dir, "client.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.clientURL())
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		TLS:         &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		DialTimeout: readyLimit,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cli.Close() })
	return cli
}

// client speaks to any member of the store.
func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	return c.clientOf(c.members...)
}

// leader is the member that leads.
func (c *cluster) leader() (found *member) {
	c.t.Helper()
	cli := c.client()
	err := eventually(c.ctx, readyLimit, func(ctx context.Context) error {
		for _, m := range c.members {
			s, err := cli.Status(ctx, m.clientURL())
			if err != nil {
				return err
			}
			if s.Leader == s.Header.MemberId {
				found = m
				return nil
			}
		}
		return errors.New("no member leads")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// etcdctl runs the operator's tool against all members, of which some may be
// down.
func (c *cluster) etcdctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, peers.Path(c.t, "etcdctl"), append([]string{
		"--endpoints=" + strings.Join(c.clientURLs(), ","),
		"--cacert=" + c.ca.certFile(),
		"--cert=" + filepath.Join(c.dir, "client.crt"),
		"--key=" + filepath.Join(c.dir, "client.key"),
		"-w=json",
	}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("etcdctl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

// etcdctlEventually repeats what a cluster refuses for the moment, as a change
// of members while connections are young.
func (c *cluster) etcdctlEventually(args ...string) (out []byte) {
	c.t.Helper()
	err := eventually(c.ctx, readyLimit, func(ctx context.Context) (err error) {
		out, err = c.etcdctl(ctx, args...)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// replace puts a member with an empty data dir in the place of one that died,
// as an operator does: remove, add a learner, start it, promote it.
func (c *cluster) replace(dead *member) {
	c.t.Helper()
	c.etcdctlEventually("member", "remove", fmt.Sprintf("%x", c.memberID(dead)))
	c.etcdctlEventually("member", "add", dead.name, "--learner", "--peer-urls="+dead.peerURL())
	if err := os.RemoveAll(dead.dataDir); err != nil {
		c.t.Fatal(err)
	}
	c.launchMember(dead, "existing")
	// The cluster knows its name only once it has joined.
	var id uint64
	err := eventually(c.ctx, readyLimit, func(context.Context) error {
		if id = c.memberID(dead); id == 0 {
			return fmt.Errorf("no member is named %s", dead.name)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.etcdctlEventually("member", "promote", fmt.Sprintf("%x", id))
	c.awaitMember(dead)
}

// memberID is how the cluster knows a member, or zero.
func (c *cluster) memberID(m *member) uint64 {
	c.t.Helper()
	var list struct {
		Members []struct {
			ID   uint64 `json:"ID"`
			Name string `json:"name"`
		} `json:"members"`
	}
	if err := json.Unmarshal(c.etcdctlEventually("member", "list"), &list); err != nil {
		c.t.Fatalf("decode member list: %v", err)
	}
	for _, l := range list.Members {
		if l.Name == m.name {
			return l.ID
		}
	}
	return 0
}

// dataSize is the size of a member's data dir in bytes.
func (c *cluster) dataSize(m *member) (total int64) {
	err := filepath.Walk(m.dataDir, func(_ string, info os.FileInfo, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist): // removed while we looked
			return nil
		case err != nil:
			return err
		case info.Mode().IsRegular():
			total += info.Size()
		}
		return nil
	})
	if err != nil {
		c.t.Fatalf("size of the data dir: %v", err)
	}
	return total
}

func getOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
