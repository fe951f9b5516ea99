package etcdapi

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

// resourcePageBytes is how much of the state is looked at in one piece when the
// counting begins.
const resourcePageBytes = 1 << 20

// Resources counts the live objects of each /registry resource, their bytes and
// the writes to them. It is fed with the events of the apply goroutine, which
// costs one map access per event, and begins with the whole state of the first
// View it is shown.
//
// The number of resources is bounded by pkg/registry, which gives what is beyond
// its bound one common name; keys outside of /registry are counted under "".
//
// Ownership: everything is under mu. Only a scrape, and the beginning, compete
// with the apply goroutine for it.
type Resources struct {
	mu      sync.Mutex
	begun   bool
	index   uint64 // applied index that the counts contain
	byName  map[string]*resourceCounts
	putSize uint64 // keys and values put since the start
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
func NewResources() *Resources { return &Resources{byName: make(map[string]*resourceCounts)} }

// Begin counts what is in v, unless an event was seen before: call it once when
// the store is open, so that a scrape before the first write is right.
func (r *Resources) Begin(v *mvcc.View) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return nil
	}
	return r.begin(v)
}

func (r *Resources) begin(v *mvcc.View) error {
	r.begun, r.index = true, v.Index()
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for page, err := range v.Pages(all, resourcePageBytes) {
		if err != nil {
			return err
		}
		for _, ver := range page.Versions {
			c := r.counts(ver.Key())
			c.Objects++
			c.Bytes += int64(len(ver.KV()))
		}
	}
	return nil
}

// Apply adds the events of one batch; v is the View they lead to. It is called
// on the apply goroutine.
func (r *Resources) Apply(v *mvcc.View, events []mvcc.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		// The state of v contains the events. It was published, so it can be read.
		_ = r.begin(v)
		return
	}
	if v.Index() <= r.index {
		return
	}
	r.index = v.Index()
	for i := range events {
		r.add(&events[i])
	}
}

func (r *Resources) add(e *mvcc.Event) {
	c := r.counts(e.Version.Key())
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

func (r *Resources) counts(key []byte) *resourceCounts {
	name := registry.ResourceOf(key)
	c := r.byName[name]
	if c == nil {
		c = &resourceCounts{}
		r.byName[name] = c
	}
	return c
}

// snapshot is a copy of the counts, for a scrape.
func (r *Resources) snapshot() (byName map[string]resourceCounts, putSize uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byName = make(map[string]resourceCounts, len(r.byName))
	for name, c := range r.byName {
		byName[name] = *c
	}
	return byName, r.putSize
}
