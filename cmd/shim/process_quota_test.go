package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProcessQuotaPerMember: of three members one has a small quota. It raises its alarm whoever takes the writes, all of them refuse what
// creates and let updates through, it says what has grown, and the alarm ends when there is room again, also by the leader if it is gone.
func TestProcessQuotaPerMember(t *testing.T) {
	quotas := []int{10 << 20, 200 << 10, 10 << 20}
	members := launchCluster(t, "http", 3, func(i int) []string { return []string{fmt.Sprintf("--quota-backend-bytes=%d", quotas[i])} })
	for _, p := range members {
		p.await()
	}
	big, small := members[0], members[1]
	value := strings.Repeat("x", 1000)
	key := func(i int) string { return fmt.Sprintf("/registry/configmaps/monitoring/c%03d", i) }
	for i := range 50 {
		big.mustPut(fmt.Sprintf("/registry/pods/default/p%02d", i), value)
	}
	n := 0
	for ; big.create(key(n), value); n++ {
		if n > 1000 {
			t.Fatal("nothing was refused")
		}
	}
	if got := big.alarms(); len(got) != 1 || got[0].MemberID != small.id() || got[0].Alarm != pb.AlarmType_NOSPACE {
		t.Errorf("alarms %v of member %x", got, small.id())
	}
	for i, p := range members {
		if p.create("new", "") {
			t.Errorf("member %d takes a new key", i)
		}
		p.mustPut(key(0), strings.Repeat("y", 1000))
	}
	small.awaitLog("what has grown most")
	line := grep(small.log(), "what has grown most")
	if !strings.Contains(line, "configmaps in monitoring +") || strings.Contains(line, "pods in default") && strings.Index(line, "pods") < strings.Index(line, "configmaps") {
		t.Errorf("it says %s", line)
	}
	if !strings.Contains(small.log(), "80 % of the quota is reached") && !strings.Contains(small.log(), "90 % of the quota is reached") {
		t.Error("it does not say that the quota is near")
	}
	if got := small.get(small.metrics, "/metrics"); !strings.Contains(got, `shim_quota_growth_bytes{namespace="monitoring",resource="configmaps"}`) {
		t.Errorf("metrics: %s", grep(got, "shim_quota"))
	}
	del := func(keys ...string) {
		for _, k := range keys {
			big.must("delete", func(ctx context.Context, c *clientv3.Client) error { _, err := c.Delete(ctx, k); return err })
		}
	}
	for i := range n - 20 { // what came between two looks is over the quota: it may be most
		del(key(i))
	}
	big.awaitAlarms(0)
	for n = 0; big.create(fmt.Sprintf("/registry/secrets/a/s%03d", n), value); n++ {
	}
	small.stop(syscall.SIGKILL)
	for i := range n {
		del(fmt.Sprintf("/registry/secrets/a/s%03d", i))
	}
	big.awaitAlarms(0)
	if !big.create("new", "") {
		t.Error("there is room, and a key is refused")
	}
	again := small.again()
	again.await()
	if got := again.mustGet("/registry/pods/default/p00"); got != value {
		t.Errorf("the member that came back has %.20q", got)
	}
}

// create answers whether there was room.
func (p *process) create(key, value string) (ok bool) {
	p.t.Helper()
	p.must("create "+key, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, key, value)
		ok = err == nil
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return nil
		}
		return err
	})
	return ok
}

func (p *process) alarms() (alarms []*clientv3.AlarmMember) {
	p.t.Helper()
	p.must("alarm list", func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.AlarmList(ctx)
		if err == nil {
			alarms = nil
			for _, a := range r.Alarms {
				alarms = append(alarms, (*clientv3.AlarmMember)(a))
			}
		}
		return err
	})
	return alarms
}

func (p *process) awaitAlarms(n int) {
	p.t.Helper()
	for end := time.Now().Add(startTimeout); len(p.alarms()) != n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("alarms %v, want %d", p.alarms(), n)
		}
	}
}

// id is the member's.
func (p *process) id() (id uint64) {
	p.must("status", func(ctx context.Context, c *clientv3.Client) error {
		st, err := c.Status(ctx, p.client)
		if err == nil {
			id = st.Header.MemberId
		}
		return err
	})
	return id
}
