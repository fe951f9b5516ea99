package etcdapi

import (
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

const (
	// resourcePageBytes is how much of the state is looked at in one piece when the
	// counting begins.
	resourcePageBytes = 1 << 20
	// resourceWait is how long a scrape waits for the beginning to be counted.
	resourceWait = 5 * time.Second
)

// Resources counts the live objects of each /registry resource, their bytes and
// the writes to them. The events of each batch come in at the cost of
// one map access each. What was there before them is counted once, beside
// them, on the first View that was seen: counts of both are sums, so it does
// not matter that writes go on meanwhile.
//
// The number of resources is bounded by pkg/registry, which gives what is beyond
// its bound one common name; keys outside of /registry are counted under "".
//
// Ownership: everything is under mu, for which only a scrape competes with
// who applies.
type Resources struct {
	mu      sync.Mutex
	begun   bool       // base was set
	base    *mvcc.View // events up to it are not added; nil once it is counted
	index   uint64     // applied index of base, or of the last events added
	broken  bool       // base could not be counted: there is nothing to show
	byName  map[string]*resourceCounts
	putSize uint64        // keys and values put since the start
	counted chan struct{} // closed when base is in the counts
}

// resourceCounts are those of one resource.
type resourceCounts struct {
	Objects int64
	Bytes   int64 // of the encoded key-values, keys and metadata included
	Creates uint64
	Updates uint64
	Deletes uint64
}

// NewResources has counted nothing yet.
func NewResources() *Resources {
	return &Resources{byName: make(map[string]*resourceCounts), counted: make(chan struct{})}
}

// Begin counts what is in v, or in the first View that Apply was shown if that
// was before. Call it once, on any goroutine; it takes about 0.2 µs per key.
func (r *Resources) Begin(v *mvcc.View) error {
	r.mu.Lock()
	r.setBase(v)
	v = r.base
	r.mu.Unlock()
	found, err := countResources(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, c := range found {
		sum := r.byName[name]
		if sum == nil {
			sum = &resourceCounts{}
			r.byName[name] = sum
		}
		sum.Objects += c.Objects
		sum.Bytes += c.Bytes
	}
	r.base, r.broken = nil, err != nil
	close(r.counted)
	return err
}

func countResources(v *mvcc.View) (map[string]*resourceCounts, error) {
	found := make(map[string]*resourceCounts)
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for page, err := range v.Pages(all, resourcePageBytes) {
		if err != nil {
			return nil, err
		}
		for _, ver := range page.Versions {
			c := countsOf(found, ver.Key())
			c.Objects++
			c.Bytes += int64(len(ver.KV()))
		}
	}
	return found, nil
}

// setBase keeps the first View.
func (r *Resources) setBase(v *mvcc.View) {
	if !r.begun {
		r.begun, r.base, r.index = true, v, v.Index()
	}
}

// Apply adds the events of one batch; v is the View they lead to. It is called
// by who applies.
func (r *Resources) Apply(v *mvcc.View, events []mvcc.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setBase(v)
	if v.Index() <= r.index {
		return // they are in the View that is counted
	}
	r.index = v.Index()
	for i := range events {
		r.add(&events[i])
	}
}

func (r *Resources) add(e *mvcc.Event) {
	c := countsOf(r.byName, e.Version.Key())
	if e.Prev != nil {
		c.Objects--
		c.Bytes -= int64(len(e.Prev.KV()))
	}
	if e.Version.Tombstone() {
		c.Deletes++
		return
	}
	c.Objects++
	c.Bytes += int64(len(e.Version.KV()))
	r.putSize += uint64(len(e.Version.Key()) + len(e.Version.Value()))
	if e.Prev == nil {
		c.Creates++
	} else {
		c.Updates++
	}
}

func countsOf(byName map[string]*resourceCounts, key []byte) *resourceCounts {
	name := registry.ResourceOf(key)
	c := byName[name]
	if c == nil {
		c = &resourceCounts{}
		byName[name] = c
	}
	return c
}

// snapshot is a copy of the counts, for a scrape. It waits until the beginning
// is counted; ok is false if that takes too long or has failed.
func (r *Resources) snapshot() (byName map[string]resourceCounts, putSize uint64, ok bool) {
	select {
	case <-r.counted:
	case <-time.After(resourceWait):
		return nil, 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	byName = make(map[string]resourceCounts, len(r.byName))
	for name, c := range r.byName {
		byName[name] = *c
	}
	return byName, r.putSize, !r.broken
}
