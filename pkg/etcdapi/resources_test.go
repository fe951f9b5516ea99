package etcdapi

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/registry"
)

// TestResourcesAgainstCounting compares the counts kept from events with a count
// of the whole state, after each of many random writes, whenever the counting
// began.
func TestResourcesAgainstCounting(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	for begin := range 5 {
		rng := rand.New(rand.NewPCG(seed, uint64(begin)))
		state := mvcc.New(mvcc.Options{})
		var r *Resources
		for i := range uint64(400) {
			key := []byte(fmt.Sprintf("/registry/%s/ns/%d", []string{"pods", "services/specs", "apiextensions.k8s.io/customresourcedefinitions"}[rng.IntN(3)], rng.IntN(10)))
			if rng.IntN(10) == 0 {
				key = []byte("outside")
			}
			req := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: key, Value: make([]byte, rng.IntN(50))}}
			if rng.IntN(4) == 0 {
				req = &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte("z")}}
			}
			res := state.Apply(mvcc.Entry{Index: i + 1, Term: 1, Request: req})
			v := state.Publish()
			switch {
			case r == nil && i < uint64(begin*20):
				continue
			case r == nil:
				r = NewResources(0)
				if begin%2 == 0 { // begun by hand, and told of the same state again
					mustBegin(t, r, v)
				}
			case i == uint64(begin*20+50) && begin%2 == 1: // long after the first events
				mustBegin(t, r, v)
			}
			r.Apply(v, res.Events)
			if begin%2 == 0 || i >= uint64(begin*20+50) {
				checkResources(t, r, v)
			}
		}
		counts, _, _ := r.snapshot()
		var writes uint64
		for _, c := range counts {
			writes += c.Creates + c.Updates + c.Deletes
		}
		if writes == 0 {
			t.Error("no write was counted")
		}
	}
}

// TestResourcesBehindAGap: a View whose events never came is counted anew, also while the one before is
// being counted, and before anything is.
func TestResourcesBehindAGap(t *testing.T) {
	state := mvcc.New(mvcc.Options{})
	index := uint64(0)
	write := func(key string) (*mvcc.View, []mvcc.Event) {
		index++
		res := state.Apply(mvcc.Entry{Index: index, Term: 1, Request: &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("/registry/pods/ns/" + key)}}})
		return state.Publish(), res.Events
	}
	r := NewResources(0)
	for i := range 30 {
		v, events := write(fmt.Sprint(i % 20))
		if i%7 == 3 {
			events = nil
		}
		if i == 10 {
			mustBegin(t, r, v)
		}
		r.Apply(v, events)
		if i >= 10 {
			checkResources(t, r, v)
		}
	}
	counts, _, _ := r.snapshot()
	if c := counts["pods"]; c.Creates == 0 || c.Updates == 0 {
		t.Errorf("the writes that were seen are not counted: %+v", c)
	}
}

// TestResourcesFromNothing: the first View may be of a state nothing was applied
// to.
func TestResourcesFromNothing(t *testing.T) {
	state := mvcc.New(mvcc.Options{})
	r := NewResources(0)
	mustBegin(t, r, state.Publish())
	req := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("/registry/pods/a/b")}}
	res := state.Apply(mvcc.Entry{Index: 1, Term: 1, Request: req})
	v := state.Publish()
	r.Apply(v, res.Events)
	checkResources(t, r, v)
}

func mustBegin(t *testing.T, r *Resources, v *mvcc.View) {
	t.Helper()
	if err := r.Begin(v); err != nil {
		t.Fatal(err)
	}
}

func checkResources(t *testing.T, r *Resources, v *mvcc.View) {
	t.Helper()
	all, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ objects, bytes int64 }
	want, got := map[string]count{}, map[string]count{}
	for _, ver := range all.Versions {
		name := registry.ResourceOf(ver.Key())
		c := want[name]
		want[name] = count{c.objects + 1, c.bytes + ver.RowSize()}
	}
	counts, _, _ := r.snapshot()
	sum := int64(0)
	for name, c := range counts {
		if c.Objects != 0 || c.Bytes != 0 {
			got[name] = count{c.Objects, c.Bytes}
		}
		sum += c.Bytes
	}
	if sum != v.LiveSize() {
		t.Fatalf("at index %d: %d bytes in all, want %d", v.Index(), sum, v.LiveSize())
	}
	if !maps.Equal(got, want) {
		t.Fatalf("at index %d: %v, want %v", v.Index(), got, want)
	}
}
