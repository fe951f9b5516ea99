package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestProcessCluster: three processes on loopback are a cluster; it goes on when the leader is killed, and the
// killed one comes back.
func TestProcessCluster(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			members := launchCluster(t, scheme, 3)
			for _, p := range members {
				p.await()
			}
			for i, p := range members {
				p.mustPut(fmt.Sprintf("k%d", i), "v")
				for j, other := range members {
					if got := other.mustGet(fmt.Sprintf("k%d", i)); got != "v" {
						t.Errorf("k%d is %q on member %d", i, got, j)
					}
				}
			}
			leader := leaderOf(t, members)
			leader.stop(syscall.SIGKILL)
			other(members, leader).mustPut("after", "v")
			again := leader.again()
			again.await()
			if got := again.mustGet("after"); got != "v" {
				t.Errorf("after is %q on the member that came back", got)
			}
		})
	}
}

// mustPut and mustGet try again: what was on its way to a leader that ended, or
// gave way to another, is not answered, as on etcd.
func (p *process) mustPut(key, value string) {
	p.t.Helper()
	p.must("put "+key, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, key, value)
		return err
	})
}

// mustGet is the value of the key, empty if there is none.
func (p *process) mustGet(key string) (value string) {
	p.t.Helper()
	p.must("get "+key, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, key)
		if err == nil && len(r.Kvs) > 0 {
			value = string(r.Kvs[0].Value)
		}
		return err
	})
	return value
}

func (p *process) must(what string, call func(context.Context, *clientv3.Client) error) {
	p.t.Helper()
	c := p.dial()
	for range 10 {
		ctx, cancel := context.WithTimeout(p.t.Context(), startTimeout/10) // longer than the member itself waits
		err := call(ctx, c)
		cancel()
		if err == nil {
			return
		}
		p.t.Logf("%s: %v", what, err)
	}
	p.t.Fatalf("%s was never answered", what)
}

// other is a member beside that one.
func other(members []*process, than *process) *process {
	for _, p := range members {
		if p != than {
			return p
		}
	}
	return nil
}

// launchCluster starts members of one new cluster; it does not wait for them. With https they make their own certificates, unless extra says
// otherwise.
func launchCluster(t *testing.T, scheme string, n int, extra ...func(i int) []string) []*process {
	t.Helper()
	members := make([]*process, n)
	var initial []string
	for i := range members {
		members[i] = &process{t: t, client: freeport.Addr(t), metrics: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
		initial = append(initial, fmt.Sprintf("m%d=%s://%s", i, scheme, members[i].peer))
	}
	for i, p := range members {
		args := []string{
			fmt.Sprintf("--name=m%d", i), "--data-dir=" + filepath.Join(t.TempDir(), "data"),
			"--listen-client-urls=http://" + p.client, "--advertise-client-urls=http://" + p.client,
			"--listen-peer-urls=" + scheme + "://" + p.peer, "--initial-advertise-peer-urls=" + scheme + "://" + p.peer,
			"--listen-metrics-urls=http://" + p.metrics, "--initial-cluster=" + strings.Join(initial, ","),
		}
		if scheme == "https" && len(extra) == 0 {
			args = append(args, "--peer-auto-tls")
		}
		for _, more := range extra {
			args = append(args, more(i)...)
		}
		p.run(args...)
	}
	return members
}

// again starts a process that ended with the same flags, and more.
func (p *process) again(more ...string) *process {
	next := &process{t: p.t, client: p.client, metrics: p.metrics, peer: p.peer, ready: make(chan struct{}), ended: make(chan struct{})}
	next.run(append(slices.Clone(p.cmd.Args[1:]), more...)...)
	return next
}

// leaderOf is the member that leads.
func leaderOf(t *testing.T, members []*process) *process {
	t.Helper()
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, p := range members {
			ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
			st, err := p.dial().Status(ctx, p.client)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if st.Leader == st.Header.MemberId {
				return p
			}
		}
	}
	t.Fatal("nobody leads")
	return nil
}

// TestProcessHandsOver: SIGTERM of the leader leaves another one behind.
func TestProcessHandsOver(t *testing.T) {
	members := launchCluster(t, "http", 3)
	for _, p := range members {
		p.await()
	}
	leader := leaderOf(t, members)
	rest := other(members, leader)
	if code := leader.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the leader ends with %d", code)
	}
	rest.mustPut("a", "1")
	if log := leader.log(); strings.Contains(log, "cannot hand over") || strings.Count(log, "leader is") < 2 {
		t.Error("the leader ended as one")
	}
}
