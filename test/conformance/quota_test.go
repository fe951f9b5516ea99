package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

const quotaBytes = 4 << 20

// quotaServer is a server that was filled to its quota.
type quotaServer struct {
	t       *testing.T
	s       *script.Server
	etcdctl string
	cli     *clientv3.Client
}

func startFull(t *testing.T, binary string) *quotaServer {
	s, err := script.Start(binary, t.TempDir(), []string{fmt.Sprintf("--quota-backend-bytes=%d", quotaBytes)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.ClientAddress()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	q := &quotaServer{t: t, s: s, etcdctl: peers.Path(t, "etcdctl"), cli: cli}
	q.fill()
	return q
}

func (q *quotaServer) key(i int) string { return fmt.Sprintf("/registry/configmaps/default/c%04d", i) }

// fill creates objects of 50 kB until one is refused, and answers the last one.
func (q *quotaServer) fill() string {
	q.t.Helper()
	for i := range 200 {
		r, err := q.cli.Txn(q.t.Context()).If(clientv3.Compare(clientv3.ModRevision(q.key(i)), "=", 0)).
			Then(clientv3.OpPut(q.key(i), strings.Repeat("x", 50_000))).Commit()
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace):
			return q.key(i)
		case err != nil:
			q.t.Fatal(err)
		case !r.Succeeded:
			continue
		}
	}
	q.t.Fatal("nothing was refused")
	return ""
}

var memberID = regexp.MustCompile(`memberID:\d+`)

// ctl is what etcdctl says, the ids of members masked.
func (q *quotaServer) ctl(args ...string) string {
	out, err := exec.Command(q.etcdctl, append([]string{"--endpoints", q.s.ClientAddress()}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s\n%v", errorText.FindString(string(out)), err)
	}
	return memberID.ReplaceAllString(string(out), "memberID:#")
}

var errorText = regexp.MustCompile(`Error: .*`)

// TestQuota fills etcd and shim to the quota. What creates is refused alike, reads and deletes go on, the alarm is told alike. Then etcd is
// brought back by hand, and shim by the deletes alone.
func TestQuota(t *testing.T) {
	if *only != "" {
		t.Skip("needs both servers")
	}
	etcd, shim := startFull(t, peers.Path(t, "etcd")), startFull(t, shimPath(t))
	for _, args := range [][]string{
		{"put", "new", "x"}, {"put", "/registry/configmaps/default/c0001", strings.Repeat("x", 60_000)}, {"alarm", "list"},
		{"get", "/registry/configmaps/default/c0001", "--keys-only"}, {"endpoint", "health"},
		{"del", "/registry/configmaps/default/c0001"},
	} {
		e, s := etcd.ctl(args...), shim.ctl(args...)
		if e, s = maskTimes(e, etcd), maskTimes(s, shim); e != s {
			t.Errorf("etcdctl %.60s: etcd says\n%s\nand shim\n%s", strings.Join(args, " "), e, s)
		} else {
			t.Logf("etcdctl %.60s: %s", strings.Join(args, " "), s)
		}
	}
	shim.goesOn()
	for i := range 10 {
		etcd.ctl("del", etcd.key(i))
		shim.ctl("del", shim.key(i))
	}
	shim.await("the end of the alarm", func() bool { return shim.ctl("alarm", "list") == "" })
	if got := shim.ctl("put", "new", "x"); got != "OK\n" {
		t.Errorf("put: %s", got)
	}
	if got := etcd.ctl("put", "new", "x"); !strings.Contains(got, rpctypes.ErrNoSpace.Error()) {
		t.Errorf("etcd has healed itself: %s", got) // then this difference is none any more
	}
	// By hand both can be disarmed.
	shim.fill()
	shim.await("the alarm", func() bool { return shim.ctl("alarm", "list") != "" })
	if e, s := etcd.ctl("alarm", "disarm"), shim.ctl("alarm", "disarm"); e != s || e == "" {
		t.Errorf("alarm disarm: etcd says %s and shim %s", e, s)
	}
	if got := shim.ctl("alarm", "list"); got != "" {
		t.Errorf("disarmed, and the list is %s", got)
	}
	refused := shim.fill()
	if got := shim.ctl("put", refused, "x"); !strings.Contains(got, rpctypes.ErrNoSpace.Error()) || shim.ctl("alarm", "list") == "" {
		t.Errorf("disarmed over the quota, and a create says %s", got)
	}
}

// goesOn is what shim lets through at the quota, and etcd does not.
func (q *quotaServer) goesOn() {
	ctx, cancel := context.WithTimeout(q.t.Context(), 3*time.Minute)
	defer cancel()
	lease, err := q.cli.Grant(ctx, 600)
	if err != nil {
		q.t.Fatalf("grant: %v", err)
	}
	update := func(key, value string, opts ...clientv3.OpOption) {
		q.t.Helper()
		if _, err := q.cli.Put(ctx, key, value, opts...); err != nil {
			q.t.Errorf("update to %d bytes: %v", len(value), err)
		}
	}
	update(q.key(2), strings.Repeat("y", 50_000))
	update(q.key(3), strings.Repeat("y", 50_000), clientv3.WithLease(lease.ID))
	update(q.key(2), strings.Repeat("y", 10_000))
	r, err := q.cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(q.key(2)), ">", 0)).
		Then(clientv3.OpPut(q.key(2), strings.Repeat("z", 10_000))).Else(clientv3.OpPut("new", "x")).Commit()
	if err != nil || !r.Succeeded {
		q.t.Errorf("guarded update: %v", err)
	}
	if _, err := q.cli.Compact(ctx, r.Header.Revision); err != nil {
		q.t.Errorf("compact: %v", err)
	}
	if _, err := q.cli.Revoke(ctx, lease.ID); err != nil {
		q.t.Errorf("revoke: %v", err)
	}
}

func (q *quotaServer) await(what string, done func() bool) {
	q.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("waited in vain for %s", what)
		}
	}
}

var took = regexp.MustCompile(`took = [^ ]+`)

// maskTimes also masks the address.
func maskTimes(s string, q *quotaServer) string {
	return took.ReplaceAllString(strings.ReplaceAll(s, q.s.ClientAddress(), "ADDRESS"), "took = #")
}
