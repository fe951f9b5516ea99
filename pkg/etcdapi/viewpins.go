package etcdapi

import (
	"sync"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// viewPins keeps the Views of lists under way, at most pinnedViewsMax of them,
// each for pinnedViewAgeMax after its last use. A kept View costs the index
// nodes and versions that were replaced since. When full the least recently used
// one is dropped: its list goes on from the old versions of the current View,
// slower and with the same result.
//
// The mutex guards all fields; it is held for a few comparisons.
type viewPins struct {
	mu    sync.Mutex
	pins  []viewPin   // most recently used first
	timer *time.Timer // runs while there are pins
}

type viewPin struct {
	view *mvcc.View
	used time.Time
}

func newViewPins() *viewPins { return &viewPins{} }

// get returns the kept View whose current revision is rev, or nil.
func (p *viewPins) get(rev mvcc.Revision) *mvcc.View {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.pins {
		if p.pins[i].view.Revision() == rev {
			p.touch(i)
			return p.pins[0].view
		}
	}
	return nil
}

// put keeps v, in place of a View of the same revision.
func (p *viewPins) put(v *mvcc.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.pins {
		if p.pins[i].view.Revision() == v.Revision() {
			p.touch(i)
			return
		}
	}
	if len(p.pins) < pinnedViewsMax {
		p.pins = append(p.pins, viewPin{})
	}
	p.pins[len(p.pins)-1] = viewPin{view: v}
	p.touch(len(p.pins) - 1)
	if p.timer == nil {
		p.timer = time.AfterFunc(pinnedViewAgeMax, p.expire)
	}
}

// touch moves pin i to the front.
func (p *viewPins) touch(i int) {
	pin := p.pins[i]
	copy(p.pins[1:i+1], p.pins[:i])
	pin.used = time.Now()
	p.pins[0] = pin
}

// expire drops what was not used for the maximum age, and comes back for the rest.
func (p *viewPins) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expireBefore(time.Now().Add(-pinnedViewAgeMax))
	p.timer = nil
	if n := len(p.pins); n > 0 {
		left := time.Until(p.pins[n-1].used.Add(pinnedViewAgeMax))
		p.timer = time.AfterFunc(max(left, time.Second), p.expire)
	}
}

// expireBefore drops the pins last used at or before t. The caller holds mu.
func (p *viewPins) expireBefore(t time.Time) {
	n := len(p.pins)
	for n > 0 && !p.pins[n-1].used.After(t) {
		n--
	}
	clear(p.pins[n:])
	p.pins = p.pins[:n]
}
