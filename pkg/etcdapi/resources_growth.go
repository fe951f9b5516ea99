package etcdapi

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

const (
	// resourcePageBytes is how much of the state is looked at in one piece.
	resourcePageBytes = 1 << 20
	// placesMax bounds the places of a census: the largest are kept.
	placesMax = 512
	// censusesMax is how many there are at a time, and censusesPerQuota how many
	// there were if the store was filled evenly: so growth is told over the last
	// 15 to 20 % of the quota.
	censusesMax, censusesPerQuota = 4, 20
	// growthPercent of the quota have to be used for growth to be in the metrics.
	growthPercent = 80
	// growthTop is how many places are told.
	growthTop = 10
)

// Place is where objects are: a resource and a namespace of it. The namespace
// is empty for cluster-wide objects; both are for keys outside of /registry.
type Place struct{ Resource, Namespace string }

// Growth is by how much a place has grown, and what it is now, in bytes.
type Growth struct {
	Place
	Grown, Bytes int64
}

// String is "events in monitoring +1234 to 5678".
func (g Growth) String() string {
	name := cmp.Or(g.Resource, "keys outside of /registry")
	if g.Namespace != "" {
		name += " in " + g.Namespace
	}
	return fmt.Sprintf("%s +%d to %d", name, g.Grown, g.Bytes)
}

// GrowthReport tells which places have grown most since a time, largest first.
type GrowthReport struct {
	Since time.Time
	Most  []Growth
}

// census is what was where at one moment: the byName of all resources, and the
// largest places.
type census struct {
	at     time.Time
	used   int64
	byName map[string]*resourceCounts
	places map[Place]int64 // bytes
}

// growth compares censuses. One is taken at the start, and each time that what
// the quota counts has changed by a 20th of it since the last one: a walk over
// all keys, on a goroutine of its own, on a View. So a store that does not grow
// has no cost but a comparison for each batch.
type growth struct {
	quota int64        // bytes; 0: none, and no censuses
	used  atomic.Int64 // of the last census
	under atomic.Bool  // a census is under way
	mu    sync.Mutex
	taken []*census // oldest first
}

// look has a census taken if enough has changed.
func (g *growth) look(v *mvcc.View) {
	moved := v.QuotaSize() - g.used.Load()
	if g.quota <= 0 || max(moved, -moved) < g.quota/censusesPerQuota || !g.under.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer g.under.Store(false)
		if c, err := walkResources(v); err == nil { // else the next batch has another attempt
			g.add(c)
		}
	}()
}

// add takes a census that is not needed for anything else any more.
func (g *growth) add(c *census) {
	c.byName = nil
	g.used.Store(c.used)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.taken) == censusesMax {
		g.taken = slices.Delete(g.taken, 0, 1)
	}
	g.taken = append(g.taken, c)
}

// Growth tells what has grown until now, once the beginning was counted; ok is
// false if that takes too long. It walks over all keys of the View, which takes
// about 0.25 µs each.
func (r *Resources) Growth(view func() *mvcc.View) (report GrowthReport, ok bool) {
	if _, _, ok = r.snapshot(); !ok {
		return report, false
	}
	now, err := walkResources(view())
	if err != nil {
		return report, false
	}
	return r.growth.until(now), true
}

// recent tells what had grown when the last census was taken, for the metrics;
// nothing while the quota is far.
func (g *growth) recent() []Growth {
	if g.quota <= 0 || g.used.Load() < g.quota/100*growthPercent {
		return nil
	}
	g.mu.Lock()
	last := g.taken[len(g.taken)-1]
	g.mu.Unlock()
	return g.until(last).Most
}

// until compares with the oldest census.
func (g *growth) until(now *census) GrowthReport {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.taken) == 0 {
		return GrowthReport{Since: now.at}
	}
	then := g.taken[0]
	report := GrowthReport{Since: then.at}
	for p, n := range now.places {
		if grown := n - then.places[p]; grown > 0 {
			report.Most = append(report.Most, Growth{Place: p, Grown: grown, Bytes: n})
		}
	}
	slices.SortFunc(report.Most, func(a, b Growth) int {
		return cmp.Or(cmp.Compare(b.Grown, a.Grown), a.compare(b.Place))
	})
	report.Most = report.Most[:min(len(report.Most), growthTop)]
	return report
}

// walkResources looks at every live key. Keys of one place are neighbours, so
// what a key belongs to is asked for once for all that begin alike.
func walkResources(v *mvcc.View) (*census, error) {
	c := &census{at: time.Now(), used: v.QuotaSize(), byName: make(map[string]*resourceCounts), places: make(map[Place]int64)}
	var begins []byte // up to the slash before the names of the objects that counts and place are of
	var counts *resourceCounts
	var place Place
	var here int64
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true}
	for page, err := range v.Pages(all, resourcePageBytes) {
		if err != nil {
			return nil, err
		}
		for _, ver := range page.Versions {
			key := ver.Key()
			if prefix := key[:bytes.LastIndexByte(key, '/')+1]; begins == nil || !bytes.Equal(prefix, begins) {
				c.addPlace(place, here)
				here = 0
				if begins = nil; registry.KindOf(key) == registry.KindObject {
					begins = prefix
				}
				place = Place{registry.ResourceOf(key), strings.ToValidUTF8(string(registry.NamespaceOf(key)), "?")}
				counts = countsOf(c.byName, place.Resource)
			}
			size := ver.RowSize()
			counts.Objects++
			counts.Bytes += size
			here += size
		}
	}
	c.addPlace(place, here)
	c.keepLargest(placesMax)
	return c, nil
}

func (c *census) addPlace(p Place, n int64) {
	if n == 0 {
		return
	}
	c.places[p] += n
	if len(c.places) >= 2*placesMax {
		c.keepLargest(placesMax)
	}
}

// keepLargest drops all but n places.
func (c *census) keepLargest(n int) {
	if len(c.places) <= n {
		return
	}
	bySize := slices.SortedFunc(maps.Keys(c.places), func(a, b Place) int {
		return cmp.Or(cmp.Compare(c.places[b], c.places[a]), a.compare(b))
	})
	for _, p := range bySize[n:] {
		delete(c.places, p)
	}
}

func (p Place) compare(o Place) int {
	return cmp.Or(cmp.Compare(p.Resource, o.Resource), cmp.Compare(p.Namespace, o.Namespace))
}
