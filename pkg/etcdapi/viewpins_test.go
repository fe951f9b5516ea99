package etcdapi

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// views returns n Views of consecutive revisions.
func views(t *testing.T, n int) []*mvcc.View {
	w := newWorld(t, 1)
	var vs []*mvcc.View
	for range n {
		w.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k")}})
		vs = append(vs, w.state.Publish())
	}
	return vs
}

// drop is what time does to all pins.
func (p *viewPins) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expireBefore(time.Now())
}

func TestViewPinsBoundedByNumber(t *testing.T) {
	p := newViewPins()
	vs := views(t, pinnedViewsMax+2)
	for _, v := range vs[:pinnedViewsMax] {
		p.put(v)
	}
	if p.get(vs[0].Revision()) != vs[0] { // now the most recently used
		t.Fatal("first view is not kept")
	}
	p.put(vs[pinnedViewsMax])
	p.put(vs[pinnedViewsMax+1])
	if len(p.pins) != pinnedViewsMax {
		t.Fatalf("%d views kept", len(p.pins))
	}
	for i, v := range vs {
		kept, want := p.get(v.Revision()) == v, i != 1 && i != 2
		if kept != want {
			t.Errorf("view %d kept: %v, want %v", i, kept, want)
		}
	}
}

func TestViewPinsSameRevision(t *testing.T) {
	p := newViewPins()
	v := views(t, 1)[0]
	p.put(v)
	p.put(v)
	if len(p.pins) != 1 {
		t.Fatalf("%d pins of one revision", len(p.pins))
	}
}

func TestViewPinsBoundedByAge(t *testing.T) {
	p := newViewPins()
	vs := views(t, 3)
	for _, v := range vs {
		p.put(v)
	}
	p.pins[1].used = time.Now().Add(-2 * pinnedViewAgeMax)
	p.pins[2].used = p.pins[1].used
	p.expire()
	if len(p.pins) != 1 || p.get(vs[2].Revision()) != vs[2] {
		t.Fatalf("%d views kept", len(p.pins))
	}
	p.pins[0].used = time.Now().Add(-2 * pinnedViewAgeMax)
	p.expire()
	if len(p.pins) != 0 || p.timer != nil {
		t.Fatal("something is kept after all have expired")
	}
}
