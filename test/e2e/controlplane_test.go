//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	nodes    = 100
	replicas = 300
	// settleLimit bounds how long controllers may take over one step.
	settleLimit = 5 * time.Minute
)

// TestControlPlane is one story in order: each step builds on the cluster that
// the steps before it left.
func TestControlPlane(t *testing.T) {
	story(t, "")
}

// TestControlPlaneBefore is the same story with the minor version before,
// whose apiserver lists with Range where the newest one uses RangeStream.
func TestControlPlaneBefore(t *testing.T) {
	story(t, "-1.36")
}

func story(t *testing.T, minor string) {
	c := newCluster(t, layout{minor: minor, members: 1, apiservers: 1})
	step := c.steps(t)
	step("nodes become ready", nodesBecomeReady)
	pods := c.followAll(c.apiservers[0], "/api/v1/namespaces/default/pods")
	maps := c.follow("configmaps", "-n", "default")
	step("a deployment runs", deploymentRuns)
	step("a rolling update", rollingUpdate)
	step("each change is seen once", func(t *testing.T, c *cluster) {
		watchArrives(t, c, pods, "pods")
		kubectlSeesChangesOnce(t, c, maps)
	})
	step("custom resources", customResources)
	step("a namespace is deleted with all in it", namespaceDeleted)
	step("events carry leases", eventsCarryLeases)
	step("kill -9 in the middle of a scale-up", killDuringScaleUp)
	step("the watch went on", func(t *testing.T, c *cluster) {
		watchArrives(t, c, pods, "pods")
		watchArrives(t, c, maps, "configmaps")
	})
	step("compaction keeps memory and disk flat", compactionKeepsFlat)
	step("nobody complains", func(t *testing.T, c *cluster) { c.checkLogs() })
}

// steps gives what runs one step, unless one before has failed.
func (c *cluster) steps(t *testing.T) func(name string, fn func(*testing.T, *cluster)) {
	return func(name string, fn func(*testing.T, *cluster)) {
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) {
			outer := c.t
			c.t = t
			defer func() { c.t = outer }()
			fn(t, c)
			c.checkRunning()
		})
	}
}

func nodesBecomeReady(t *testing.T, c *cluster) {
	c.run(nodeManifests(nodes), "create", "-f", "-")
	c.run("", "wait", "--for=condition=Ready", "node", "--all", "--timeout="+settleLimit.String())
	if got := len(c.list("nodes")); got != nodes {
		t.Fatalf("%d nodes, want %d", got, nodes)
	}
}

func deploymentRuns(t *testing.T, c *cluster) {
	c.run(deploymentManifest("default", "web", replicas), "create", "-f", "-")
	c.waitRollout("web")
	c.wantRunning("web", replicas)
}

func rollingUpdate(t *testing.T, c *cluster) {
	old := map[string]bool{}
	for _, p := range c.list("pods", "-n", "default", "-l", "app=web") {
		old[p.Metadata.UID] = true
	}
	c.run("", "set", "image", "deployment/web", "-n", "default", "main=registry.invalid/app:v2")
	c.waitRollout("web")
	c.wantRunning("web", replicas)
	for _, p := range c.list("pods", "-n", "default", "-l", "app=web") {
		if old[p.Metadata.UID] {
			t.Errorf("pod %s is still there after the update", p.Metadata.Name)
		}
	}
}

// watchArrives waits until the watch, event by event, has come to what the
// list says; the follower fails on an event that came twice or out of order.
func watchArrives(t *testing.T, c *cluster, f *follower, resource string) {
	err := eventually(c.ctx, settleLimit, func(context.Context) error {
		f.check(t)
		l, err := f.server.list(c.ctx, resource, "-n", "default", "-o", "json")
		if err != nil {
			return err
		}
		return f.matches(l.Items)
	})
	if err != nil {
		t.Error(err)
	}
	f.check(t)
}

// kubectlSeesChangesOnce makes a known number of changes under `kubectl get -w`.
func kubectlSeesChangesOnce(t *testing.T, c *cluster, f *follower) {
	const count = 20
	before := f.seen()
	c.run(configMapManifests("default", "seen", count), "create", "-f", "-")
	c.run("", "label", "configmaps", "-n", "default", "--all", "step=1")
	kept := len(c.list("configmaps", "-n", "default")) - count
	for i := range count {
		c.run("", "delete", "configmap", "-n", "default", fmt.Sprintf("seen-%03d", i))
	}
	watchArrives(t, c, f, "configmaps")
	if got, want := f.seen()-before, 3*count+kept; got != want {
		t.Errorf("kubectl get -w saw %d events of %d changes", got, want)
	}
}

func customResources(t *testing.T, c *cluster) {
	const count = 50
	c.run(widgetDefinition, "create", "-f", "-")
	c.run("", "wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=60s")
	// The served discovery follows the condition; create retries until then.
	err := eventually(c.ctx, settleLimit, func(ctx context.Context) error {
		_, err := c.tryKubectl(ctx, widgetManifests("default", count), "apply", "-f", "-")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(c.list("widgets", "-n", "default")); got != count {
		t.Fatalf("%d widgets, want %d", got, count)
	}
	c.run("", "delete", "widgets", "-n", "default", "--all")
	if got := len(c.list("widgets", "-n", "default")); got != 0 {
		t.Fatalf("%d widgets after delete", got)
	}
}

func namespaceDeleted(t *testing.T, c *cluster) {
	c.run("", "create", "namespace", "doomed")
	c.run(configMapManifests("doomed", "cm", 50), "create", "-f", "-")
	c.run(deploymentManifest("doomed", "brief", 20), "create", "-f", "-")
	c.run(widgetManifests("doomed", 10), "create", "-f", "-")
	c.run("", "rollout", "status", "deployment/brief", "-n", "doomed", "--timeout="+settleLimit.String())
	if len(keysOf(t, c, "doomed")) < 80 {
		t.Fatalf("the namespace holds only %d keys before its end", len(keysOf(t, c, "doomed")))
	}
	c.run("", "delete", "namespace", "doomed", "--timeout="+settleLimit.String())
	// Events that were under way may be written until a moment after.
	err := eventually(c.ctx, settleLimit, func(context.Context) error {
		for _, k := range keysOf(t, c, "doomed") {
			if !strings.HasPrefix(k, "/registry/events/") {
				return fmt.Errorf("%s is still there", k)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// keysOf lists what the store holds of a namespace.
func keysOf(t *testing.T, c *cluster, namespace string) (keys []string) {
	t.Helper()
	resp, err := c.client().Get(c.ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if strings.Contains(string(kv.Key), "/"+namespace+"/") || strings.HasSuffix(string(kv.Key), "/namespaces/"+namespace) {
			keys = append(keys, string(kv.Key))
		}
	}
	return keys
}

func eventsCarryLeases(t *testing.T, c *cluster) {
	cli := c.client()
	resp, err := cli.Get(c.ctx, "/registry/events/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Fatal("no events in the store")
	}
	leases := map[int64]int{}
	for _, kv := range resp.Kvs {
		if kv.Lease == 0 {
			t.Errorf("event %s has no lease", kv.Key)
		}
		leases[kv.Lease]++
	}
	for id, keys := range leases {
		ttl, err := cli.TimeToLive(c.ctx, clientv3.LeaseID(id), clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		if ttl.TTL <= 0 || ttl.TTL > ttl.GrantedTTL || ttl.GrantedTTL < 3600 {
			t.Errorf("lease %x of events: ttl %d of %d", id, ttl.TTL, ttl.GrantedTTL)
		}
		if len(ttl.Keys) != keys {
			t.Errorf("lease %x holds %d keys, events name it %d times", id, len(ttl.Keys), keys)
		}
	}
}

// killDuringScaleUp kills the store while pods are being created and while a
// client writes objects of its own, whose acknowledgements are kept.
func killDuringScaleUp(t *testing.T, c *cluster) {
	w := c.startWriter("acked")
	if err := c.apiservers[0].scale(c.ctx, "web", replicas+100); err != nil {
		t.Fatal(err)
	}
	w.await(t, 10)
	store := c.members[0]
	store.kill()
	c.launchMember(store, "new")
	c.awaitMember(store)
	w.stop()

	err := eventually(c.ctx, settleLimit, func(ctx context.Context) error {
		_, err := c.tryKubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.check(t, c)
	c.waitRollout("web")
	c.wantRunning("web", replicas+100)
}

// compactionKeepsFlat writes the same objects again and again over several
// compactions by the apiserver; memory and disk must not follow the history.
func compactionKeepsFlat(t *testing.T, c *cluster) {
	const warmUp, rounds = 3, 4
	ctx, cancel := context.WithCancel(c.ctx)
	var writers sync.WaitGroup
	defer func() { cancel(); writers.Wait() }()
	cli := c.client()
	churn(ctx, &writers, cli)

	var rss, disk []int64
	watch := cli.Watch(ctx, "compact_rev_key")
	limit := time.After(settleLimit)
	for len(rss) < warmUp+rounds {
		select {
		case resp := <-watch:
			if err := resp.Err(); err != nil {
				t.Fatalf("watch of compact_rev_key: %v", err)
			}
		case <-limit:
			t.Fatalf("%d compactions in %s", len(rss), settleLimit)
		}
		r, err := c.members[0].rss()
		if err != nil {
			t.Fatal(err)
		}
		rss, disk = append(rss, r), append(disk, c.dataSize(c.members[0]))
	}
	t.Logf("rss %d MB, disk %d MB", megabytes(rss), megabytes(disk))
	for what, series := range map[string][]int64{"rss": rss, "disk": disk} {
		settled, last := series[warmUp], series[len(series)-1]
		if last > settled+settled/2+16<<20 {
			t.Errorf("%s grows over compactions: %d MB", what, megabytes(series))
		}
	}
	if _, err := cli.Get(ctx, "/registry/pods/", clientv3.WithPrefix(), clientv3.WithRev(1)); err == nil {
		t.Error("revision 1 is still readable")
	}
}

// churn updates a fixed set of keys at a steady 400 writes per second, beside
// the control plane's own, until the context ends. The rate is fixed because
// the history between two compactions is in proportion to it.
func churn(ctx context.Context, writers *sync.WaitGroup, cli *clientv3.Client) {
	value := strings.Repeat("x", 3000)
	for w := range 4 {
		writers.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = cli.Put(ctx, fmt.Sprintf("/churn/%d/%03d", w, i%250), value)
				<-tick.C
			}
		})
	}
}

func megabytes(bytes []int64) []int64 {
	out := make([]int64, len(bytes))
	for i, b := range bytes {
		out[i] = b >> 20
	}
	return out
}

func (c *cluster) waitRollout(name string) {
	c.t.Helper()
	c.run("", "rollout", "status", "deployment/"+name, "-n", "default", "--timeout="+settleLimit.String())
}

func (c *cluster) wantRunning(app string, want int) {
	c.t.Helper()
	err := eventually(c.ctx, settleLimit, func(context.Context) error {
		running := 0
		all := c.list("pods", "-n", "default", "-l", "app="+app)
		for _, p := range all {
			if p.Status.Phase == "Running" {
				running++
			}
		}
		if running != want || len(all) != want {
			return fmt.Errorf("%d of %d pods of %s are running, want %d", running, len(all), app, want)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}
