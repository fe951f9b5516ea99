package clients

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/kubeshim/shim/test/internal/member"
	"github.com/kubeshim/shim/test/internal/peers"
)

var server = flag.String("server", "shim", "the server of the tests with faults: shim or etcd")

const (
	// limit bounds one test.
	limit = 8 * time.Minute
	// callLimit bounds one call that is tried again when it fails.
	callLimit = 5 * time.Second
	// pollInterval is between two questions about what no event tells of.
	pollInterval = 20 * time.Millisecond
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = os.Setenv("ETCD_CLIENT_DEBUG", "fatal") // members go away here all the time
	if signal.Ignored(os.Interrupt) {           // by who runs the tests: an etcdctl would inherit that
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	os.Exit(m.Run())
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func program(t testing.TB, name string) string {
	if name == "shim" {
		return peers.Shim(t)
	}
	return peers.Path(t, name)
}

// cluster is some members of one program on the loopback.
type cluster struct {
	t       testing.TB
	members []*member.Member
}

func startCluster(t testing.TB, name string, n int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	path, dir := program(t, name), t.TempDir()
	for i := range n {
		m, err := member.New(fmt.Sprintf("m%d", i+1), path, dir)
		if err != nil {
			t.Fatal(err)
		}
		c.members = append(c.members, m)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			if t.Failed() {
				t.Log(m.Log())
			}
			m.End(syscall.SIGKILL)
		}
	})
	for _, m := range c.members {
		m.Etcd(c.members...)
		if err := m.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	c.awaitHealthy()
	return c
}

func (c *cluster) endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.Client)
	}
	return all
}

// client knows all members, and is quick to come back to one that was away.
func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), DialTimeout: limit, DialOptions: []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pollInterval, Multiplier: 1.6, MaxDelay: time.Second}}),
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// awaitHealthy waits until each member answers a linearizable read.
func (c *cluster) awaitHealthy() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, m := range c.members {
		cli, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}})
		if err != nil {
			c.t.Fatal(err)
		}
		err = again(ctx, func(ctx context.Context) error { _, err := cli.Get(ctx, "health"); return err })
		_ = cli.Close()
		if err != nil {
			c.t.Fatalf("%s is not healthy: %v", m.Name, err)
		}
	}
}

// leader is the member that leads.
func (c *cluster) leader() *member.Member {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var leader *member.Member
	err := again(ctx, func(ctx context.Context) error {
		for _, m := range c.members {
			cli, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}})
			if err != nil {
				return err
			}
			st, err := cli.Status(ctx, m.Client)
			_ = cli.Close()
			if err == nil && st.Leader == st.Header.MemberId {
				leader = m
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return leader
}

// restart ends a member, brings it back, and waits until all are healthy.
func (c *cluster) restart(m *member.Member, sig syscall.Signal) {
	c.t.Helper()
	m.End(sig)
	if err := m.Launch(); err != nil {
		c.t.Fatal(err)
	}
	c.awaitHealthy()
}

// moveLeader has another member lead, and waits until all know it.
func (c *cluster) moveLeader() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := again(ctx, func(ctx context.Context) error {
		leader := c.leader()
		cli, err := clientv3.New(clientv3.Config{Endpoints: []string{leader.Client}})
		if err != nil {
			return err
		}
		defer cli.Close()
		list, err := cli.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range list.Members {
			if m.ID != list.Header.MemberId {
				_, err := cli.MoveLeader(ctx, m.ID)
				return err
			}
		}
		return errors.New("there is one member")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.awaitHealthy()
}

// again makes a call until it succeeds or ctx ends.
func again(ctx context.Context, call func(context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, callLimit)
		err := call(one)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
		}
	}
}

// etcdctl runs etcdctl against all members.
func (c *cluster) etcdctl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, peers.Path(c.t, "etcdctl"), append([]string{"--endpoints=" + strings.Join(c.endpoints(), ",")}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), peers.EtcdctlPatience...)
	return cmd
}

// disturb does to a cluster, one after the other, what members go through, and
// awaits progress after each.
func (c *cluster) disturb(progress func(what string)) {
	c.t.Helper()
	progress("the start")
	c.restart(c.leader(), syscall.SIGKILL)
	progress("the leader was killed")
	c.moveLeader()
	progress("the leader was moved")
	for _, m := range c.members {
		c.restart(m, syscall.SIGTERM)
	}
	progress("all were restarted in turn")
	for _, m := range c.members {
		m.End(syscall.SIGKILL)
	}
	for _, m := range c.members {
		if err := m.Launch(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.awaitHealthy()
	progress("all were killed at once")
}
