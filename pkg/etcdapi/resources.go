package etcdapi

import (
	"sync"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

// resourceWait is how long a scrape waits for the beginning to be counted.
const resourceWait = 5 * time.Second

// Resources counts the live objects of each /registry resource, their bytes and
// the writes to them. The events of each batch come in at the cost of
// one map access each. What was there before them is counted once, beside
// them, on the first View that was seen: counts of both are sums, so it does
// not matter that writes go on meanwhile. A View that comes without the events
// that led to it (a member got a snapshot) is counted in the same way, anew.
//
// The number of resources is bounded by pkg/registry, which gives what is beyond
// its bound one common name; keys outside of /registry are counted under "".
//
// Namespaces are not counted write by write, as there may be any number of
// them: see growth.
//
// Ownership: everything is under mu, for which only a scrape competes with
// who applies. growth has a lock of its own.
type Resources struct {
	mu      sync.Mutex
	begun   bool          // base was set
	base    *mvcc.View    // events up to it are not added; nil once it is counted
	round   int           // how many bases there were before
	index   uint64        // applied index of base, or of the last events added
	rev     mvcc.Revision // the same for the revision
	started bool          // Begin was called
	broken  bool          // base could not be counted: there is nothing to show
	byName  map[string]*resourceCounts
	putSize uint64        // keys and values put since the start
	counted chan struct{} // closed when base is in the counts
	growth  growth
}

// resourceCounts are those of one resource.
type resourceCounts struct {
	Objects int64
	Bytes   int64 // of the rows, as the quota counts them
	Creates uint64
	Updates uint64
	Deletes uint64
}

// NewResources has counted nothing yet. The quota, in bytes, says how much
// growth is worth a look at where it is; 0: none.
func NewResources(quota int64) *Resources {
	r := &Resources{byName: make(map[string]*resourceCounts), counted: make(chan struct{})}
	r.growth.quota = quota
	r.growth.under.Store(true) // until what is there at first is counted
	return r
}

// Begin counts what is in v, or in the first View that Apply was shown if that
// was before. Call it once, on any goroutine; it takes about 0.2 µs per key.
func (r *Resources) Begin(v *mvcc.View) error {
	r.mu.Lock()
	r.setBase(v)
	r.started = true
	v, round := r.base, r.round
	r.mu.Unlock()
	return r.count(v, round)
}

// count adds what is in v, unless there is another base by then.
func (r *Resources) count(v *mvcc.View, round int) error {
	found, err := walkResources(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	if round != r.round {
		return nil
	}
	if err == nil {
		r.addAll(found)
	}
	r.base, r.broken = nil, err != nil
	r.growth.under.Store(false)
	close(r.counted)
	return err
}

func (r *Resources) addAll(found *census) {
	for name, c := range found.byName {
		sum := r.byName[name]
		if sum == nil {
			sum = &resourceCounts{}
			r.byName[name] = sum
		}
		sum.Objects += c.Objects
		sum.Bytes += c.Bytes
	}
	r.growth.add(found)
}

// setBase keeps the first View.
func (r *Resources) setBase(v *mvcc.View) {
	if !r.begun {
		r.begun, r.base, r.index, r.rev = true, v, v.Index(), v.Revision()
	}
}

// rebase forgets what there is, and has v counted. Writes stay counted.
func (r *Resources) rebase(v *mvcc.View) {
	r.base, r.index, r.rev, r.round = v, v.Index(), v.Revision(), r.round+1
	for _, c := range r.byName {
		c.Objects, c.Bytes = 0, 0
	}
	if !r.started {
		return // Begin counts it
	}
	select {
	case <-r.counted:
		r.counted = make(chan struct{})
	default:
	}
	go func(round int) { _ = r.count(v, round) }(r.round) // a failure shows as missing metrics
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
	if len(events) == 0 && v.Revision() > r.rev {
		r.rebase(v)
		return
	}
	r.index, r.rev = v.Index(), v.Revision()
	for i := range events {
		r.add(&events[i])
	}
	r.growth.look(v)
}

func (r *Resources) add(e *mvcc.Event) {
	c := countsOf(r.byName, registry.ResourceOf(e.Version.Key()))
	if e.Prev != nil {
		c.Objects--
		c.Bytes -= e.Prev.RowSize()
	}
	if e.Version.Tombstone() {
		c.Deletes++
		return
	}
	c.Objects++
	c.Bytes += e.Version.RowSize()
	r.putSize += uint64(len(e.Version.Key()) + e.Version.ValueLen())
	if e.Prev == nil {
		c.Creates++
	} else {
		c.Updates++
	}
}

func countsOf(byName map[string]*resourceCounts, name string) *resourceCounts {
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
	r.mu.Lock()
	counted := r.counted
	r.mu.Unlock()
	select {
	case <-counted:
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
