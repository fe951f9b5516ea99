package etcdapi

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

// growing is a state that is written to, and watched by Resources.
type growing struct {
	t     *testing.T
	state *mvcc.State
	r     *Resources
	view  *mvcc.View
}

func newGrowing(t *testing.T, quota int64) *growing {
	g := &growing{t: t, state: mvcc.New(mvcc.Options{}), r: NewResources(quota)}
	g.view = g.state.Publish()
	mustBegin(t, g.r, g.view)
	return g
}

func (g *growing) apply(req *pb.InternalRaftRequest) {
	res := g.state.Apply(mvcc.Entry{Index: g.state.Index() + 1, Term: 1, Request: req})
	if res.Err != nil {
		g.t.Fatal(res.Err)
	}
	g.view = g.state.Publish()
	g.r.Apply(g.view, res.Events)
	for deadline := time.Now().Add(time.Minute); g.r.growth.under.Load(); { // a census is under way
		if time.Now().After(deadline) {
			g.t.Fatal("no end of a census")
		}
	}
}

func (g *growing) put(key string, bytes int) {
	g.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: make([]byte, bytes)}})
}

func (g *growing) report() GrowthReport {
	report, ok := g.r.Growth(func() *mvcc.View { return g.view })
	if !ok {
		g.t.Fatal("no report")
	}
	return report
}

// TestGrowth: what fills a store is named, by resource and namespace, over the last fifth of the quota; the metrics say so when it is near.
func TestGrowth(t *testing.T) {
	g := newGrowing(t, 1<<20)
	for i := range 500 {
		g.put(fmt.Sprintf("/registry/pods/default/p%03d", i), 1000)
	}
	if top := g.report().Most; len(top) != 1 || top[0].Place != (Place{"pods", "default"}) || top[0].Grown < 150<<10 || top[0].Grown > 270<<10 {
		t.Errorf("half full: %v", top)
	}
	if got := g.r.growth.recent(); got != nil {
		t.Errorf("half full, and the metrics say %v", got)
	}
	for i := range 350 {
		g.put(fmt.Sprintf("/registry/events/monitoring/e%03d", i), 1000)
		if i%10 == 0 {
			g.put(fmt.Sprintf("/registry/example.com/widgets/n%d", i), 100)
		}
		if i%2 == 0 {
			g.put(fmt.Sprintf("/registry/pods/default/p%03d", i), 800)
		}
	}
	for name, top := range map[string][]Growth{"report": g.report().Most, "metrics": g.r.growth.recent()} {
		if len(top) < 2 || top[0].Place != (Place{"events", "monitoring"}) || top[1].Place != (Place{"widgets.example.com", ""}) {
			t.Errorf("%s: %v", name, top)
		}
		if slices.ContainsFunc(top, func(g Growth) bool { return g.Resource == "pods" }) {
			t.Errorf("%s: what has shrunk is in %v", name, top)
		}
	}
	if got := g.report().Most[0].String(); !strings.HasPrefix(got, "events in monitoring +") || !strings.Contains(got, " to 3") {
		t.Errorf("told as %q", got)
	}
	if n := len(g.r.growth.taken); n != censusesMax {
		t.Errorf("%d censuses", n)
	}
	g.apply(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("/registry/events"), RangeEnd: []byte("/registry/f")}})
	if got := g.r.growth.recent(); got != nil {
		t.Errorf("emptied, and the metrics say %v", got)
	}
}

// TestWalkResources compares the walk with a look at each key by itself, on keys of all kinds in all orders.
func TestWalkResources(t *testing.T) {
	const seed = 3
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	segments := []string{"registry", "pods", "services", "specs", "endpoints", "a.b", "minions", "ns", "ns-1", "x", "", "\xff", "configmaps", "calico"}
	g := newGrowing(t, 0)
	for range 2000 {
		key := "/registry"
		if rng.IntN(8) == 0 {
			key = ""
		}
		for range 1 + rng.IntN(4) {
			key += "/" + segments[rng.IntN(len(segments))]
		}
		g.put(key, rng.IntN(100))
	}
	c, err := walkResources(g.view)
	if err != nil {
		t.Fatal(err)
	}
	all, err := g.view.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	byName, places, sum := map[string]resourceCounts{}, map[Place]int64{}, int64(0)
	for _, v := range all.Versions {
		p := Place{Resource: registry.ResourceOf(v.Key())}
		p.Namespace = strings.ToValidUTF8(string(registry.NamespaceOf(v.Key())), "?")
		n := byName[p.Resource]
		byName[p.Resource] = resourceCounts{Objects: n.Objects + 1, Bytes: n.Bytes + v.RowSize()}
		places[p] += v.RowSize()
		sum += v.RowSize()
	}
	got := map[string]resourceCounts{}
	for name, n := range c.byName {
		got[name] = *n
	}
	if !maps.Equal(got, byName) {
		t.Errorf("resources %v, want %v", got, byName)
	}
	if !maps.Equal(c.places, places) || len(places) < 20 {
		t.Errorf("places %v, want %v", c.places, places)
	}
	if sum != g.view.LiveSize() || c.used != g.view.QuotaSize() {
		t.Errorf("%d bytes, want %d; %d used", g.view.LiveSize(), sum, c.used)
	}
}

// TestPlacesAreBounded: of many namespaces the largest are kept, also of many that are alike.
func TestPlacesAreBounded(t *testing.T) {
	g := newGrowing(t, 0)
	for i := range 3 * placesMax {
		g.put(fmt.Sprintf("/registry/pods/n%05d/x", i), 10)
	}
	for i := range 5 {
		g.put(fmt.Sprintf("/registry/secrets/n%05d/x", i*100), 100+i)
	}
	c, err := walkResources(g.view)
	if err != nil || len(c.places) != placesMax {
		t.Fatalf("%d places, %v", len(c.places), err)
	}
	for i := range 5 {
		if c.places[Place{"secrets", fmt.Sprintf("n%05d", i*100)}] == 0 {
			t.Errorf("the largest place %d is not there", i)
		}
	}
}

// BenchmarkWalkResources is a census of 200,000 pods in 200 namespaces.
func BenchmarkWalkResources(b *testing.B) {
	state := mvcc.New(mvcc.Options{})
	for i := range 200_000 {
		state.Apply(mvcc.Entry{Index: uint64(i) + 1, Term: 1, Request: &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/pods/namespace-%03d/some-deployment-%d", i%200, i)}}})
	}
	v := state.Publish()
	for b.Loop() {
		if _, err := walkResources(v); err != nil {
			b.Fatal(err)
		}
	}
}
