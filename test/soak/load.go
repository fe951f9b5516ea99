package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/measure"
)

// The cluster that the load is of: objects of these sizes, which writes come at
// which rate, of a hundred.
const (
	pods       = "pods"
	nodeLeases = "leases"
	events     = "events"
	services   = "masterleases"

	podBytes   = 3000
	leaseBytes = 400
	eventBytes = 900
	namespaces = 50
	pageKeys   = 500

	heartbeats = 47 // of node leases and of leader elections
	statuses   = 33 // of pods
	newEvents  = 10
	podChanges = 10 // creates and deletions in turn

	readsPerWrite = 0.6

	eventTTL  = 60 * time.Second
	masterTTL = 15 * time.Second
	// leaseUse is how long events take the same lease.
	leaseUse = 10 * time.Second
	// masterEvery is how often an apiserver tells that it is there.
	masterEvery = 10 * time.Second
	// listEvery is how often somebody lists a resource by pages.
	listEvery = 5 * time.Second
	// apiservers watch everything and tell that they are there.
	apiservers = 3
)

var resources = []string{pods, nodeLeases, events, services}

// load is what a cluster does all the time, at a steady rate whatever the
// answers do: a latency counts from when the call was due.
type load struct {
	api    *api
	leases *pool
	pods   *pool

	now     atomic.Pointer[recorder] // of the phase
	created atomic.Int64             // names of pods
	event   atomic.Int64             // names of events
	lease   atomic.Int64             // of events
	calls   sync.WaitGroup
}

func newLoad(a *api) *load {
	l := &load{api: a, leases: &pool{}, pods: &pool{}}
	l.now.Store(newRecorder())
	return l
}

// pool has the objects that no call works on.
type pool struct {
	mu   sync.Mutex
	idle []*object
}

// take answers any object, nil if there is none.
func (p *pool) take() *object {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	i := rand.IntN(n)
	o := p.idle[i]
	p.idle[i] = p.idle[n-1]
	p.idle = p.idle[:n-1]
	return o
}

func (p *pool) put(o *object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, o)
}

func (l *load) podKey() string {
	i := l.created.Add(1)
	return fmt.Sprintf("/registry/pods/ns-%02d/pod-%07d", i%namespaces, i)
}

// fill makes the objects that are there from the beginning.
func (l *load) fill(ctx context.Context, podCount, nodes int) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 32 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				switch {
				case i < nodes:
					o := &object{key: fmt.Sprintf("/registry/leases/kube-node-lease/node-%05d", i)}
					l.api.put(ctx, nodeLeases, o, l.api.value(leaseBytes), 0)
					l.leases.put(o)
				case i < nodes+podCount:
					o := &object{key: l.podKey()}
					l.api.put(ctx, pods, o, l.api.value(podBytes), 0)
					l.pods.put(o)
				default:
					return
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// run makes rate writes a second, and the reads beside them, until ctx ends;
// then it waits for the answers.
func (l *load) run(ctx context.Context, rate float64) {
	var wg sync.WaitGroup
	wg.Go(func() { l.paced(ctx, rate, (*recorder).lateWrite, l.write) })
	wg.Go(func() { l.paced(ctx, rate*readsPerWrite, nil, l.read) })
	wg.Go(func() { l.everyNow(ctx, leaseUse, func(context.Context) { l.newLease(ctx) }) })
	for i := range apiservers {
		wg.Go(func() {
			o := &object{key: fmt.Sprintf("/registry/masterleases/10.0.0.%d", i), expires: true}
			l.everyNow(ctx, masterEvery, func(ctx context.Context) { l.masterLease(ctx, o) })
		})
	}
	wg.Go(func() {
		for i := 0; ; i++ {
			if !pause(ctx, listEvery) {
				return
			}
			_ = l.api.pages(context.WithoutCancel(ctx), resources[i%3]) // failed is told
		}
	})
	wg.Wait()
	l.calls.Wait()
}

// paced fires calls at a steady rate. They are not cut off when ctx ends.
func (l *load) paced(ctx context.Context, rate float64, late func(*recorder, time.Duration), call func(context.Context, time.Time, *recorder)) {
	_, _ = measure.NewPacer(rate).Run(ctx, nil, func(_ int, due time.Time) {
		r := l.now.Load()
		if late != nil {
			late(r, time.Since(due))
		}
		l.calls.Go(func() { call(context.WithoutCancel(ctx), due, r) })
	})
}

func (l *load) everyNow(ctx context.Context, every time.Duration, do func(context.Context)) {
	for {
		do(context.WithoutCancel(ctx))
		if !pause(ctx, every) {
			return
		}
	}
}

// pause waits; it answers false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// write is the next of the mix.
func (l *load) write(ctx context.Context, due time.Time, r *recorder) {
	var kind string
	var out outcome
	switch n := rand.IntN(heartbeats + statuses + newEvents + podChanges); {
	case n < heartbeats:
		kind, out = "heartbeat", l.update(ctx, nodeLeases, l.leases, leaseBytes)
	case n < heartbeats+statuses:
		kind, out = "status", l.update(ctx, pods, l.pods, podBytes)
	case n < heartbeats+statuses+newEvents:
		kind, out = "event", l.newEvent(ctx)
	case n%2 == 0:
		o := &object{key: l.podKey()}
		kind, out = "create", l.api.put(ctx, pods, o, l.api.value(podBytes), 0)
		l.keep(l.pods, o, out)
	default:
		kind, out = "delete", l.deletePod(ctx)
	}
	r.wrote(kind, due, time.Since(due), out)
}

// keep has the object be used again; one that is surely not there is gone.
func (l *load) keep(p *pool, o *object, out outcome) {
	if o.mod != 0 || out == unknown {
		p.put(o)
	}
}

// fresh finds out about an object whose last write is unknown.
func (l *load) fresh(ctx context.Context, resource string, p *pool) *object {
	o := p.take()
	if o == nil || !o.stale {
		return o
	}
	if l.api.get(ctx, resource, o) != nil {
		p.put(o)
		return nil
	}
	return o
}

func (l *load) update(ctx context.Context, resource string, p *pool, size int) outcome {
	o := l.fresh(ctx, resource, p)
	if o == nil {
		return unknown
	}
	out := l.api.put(ctx, resource, o, l.api.value(size), 0) // one that is gone comes back
	l.keep(p, o, out)
	return out
}

func (l *load) deletePod(ctx context.Context) outcome {
	o := l.fresh(ctx, pods, l.pods)
	if o == nil || o.mod == 0 {
		return unknown
	}
	out := l.api.remove(ctx, pods, o)
	l.keep(l.pods, o, out)
	return out
}

func (l *load) newEvent(ctx context.Context) outcome {
	lease := l.lease.Load()
	if lease == 0 {
		return refused
	}
	n := l.event.Add(1)
	o := &object{key: fmt.Sprintf("/registry/events/ns-%02d/pod.%012x", n%namespaces, n)}
	return l.api.put(ctx, events, o, l.api.value(eventBytes), lease)
}

// newLease is for the next events, much longer than they will use it.
func (l *load) newLease(ctx context.Context) {
	l.lease.Store(l.api.grant(ctx, eventTTL)) // 0: no events for now
}

func (l *load) masterLease(ctx context.Context, o *object) {
	if l.api.get(ctx, services, o) != nil { // it may have expired
		return
	}
	if id := l.api.grant(ctx, masterTTL); id != 0 {
		l.api.put(ctx, services, o, l.api.value(leaseBytes), id)
	}
}

// read is a get, or one of those that only want a revision or a count.
func (l *load) read(ctx context.Context, due time.Time, r *recorder) {
	switch n := rand.IntN(100); {
	case n < 60:
		o := l.pods.take()
		if o == nil {
			return
		}
		err := l.api.get(ctx, pods, o)
		l.keep(l.pods, o, unknown)
		if err != nil {
			return
		}
	case n < 95:
		if _, err := l.api.revision(ctx, resources[n%len(resources)]); err != nil {
			return
		}
	default:
		if l.count(ctx) != nil {
			return
		}
	}
	r.read(time.Since(due))
}

func (l *load) count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	const prefix = "/registry/" + events + "/"
	_, err := l.api.kv(events).Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: measure.PrefixEnd(prefix), CountOnly: true})
	if err != nil {
		l.api.failed("count", err)
	}
	return err
}
