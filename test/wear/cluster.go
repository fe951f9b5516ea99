package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// What a quiet cluster is made of.
const (
	podsPerNode   = 10
	nodeImages    = 30 // that a node tells of; at most 50 in Kubernetes
	catalogImages = 60 // of the cluster

	leaseEvery   = 10 * time.Second // a kubelet, an API server's identity
	leaderEvery  = 2 * time.Second  // kube-controller-manager, kube-scheduler
	masterEvery  = 10 * time.Second // the API server's address
	masterTTL    = 15 * time.Second
	statusEvery  = 5 * time.Minute
	eventEvery   = 10 * time.Minute // of each node
	eventTTL     = 3660 * time.Second
	grantEvery   = time.Minute // an event's lease is shared
	compactEvery = 5 * time.Minute
)

// The leases in kube-system: of components with one leader, and of the API server.
var leaders = []string{"kube-controller-manager", "kube-scheduler"}

const identityLease = "apiserver-6xnmtjtqmqqlzlnjsdqkpkjnxm"

// writer writes something every so often.
type writer struct {
	next  time.Duration // in the hour
	every time.Duration
	write func(p *player) error
}

// writers are ordered by their next write.
type writers []*writer

func (w writers) Len() int           { return len(w) }
func (w writers) Less(i, j int) bool { return w[i].next < w[j].next }
func (w writers) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *writers) Push(x any)        { *w = append(*w, x.(*writer)) }
func (w *writers) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

// cluster answers all writers of a cluster of so many nodes, each with a phase of its own.
func cluster(nodes int) *writers {
	random := rand.New(rand.NewPCG(1, uint64(nodes)))
	var all writers
	add := func(every time.Duration, write func(p *player) error) {
		all = append(all, &writer{time.Duration(random.Int64N(int64(every))), every, write})
	}
	leader := func(name string) func(*player) error {
		return func(p *player) error {
			return p.update("/registry/leases/kube-system/"+name, p.world.leaderLease(name, p.now), 0)
		}
	}
	for i := range nodes {
		add(leaseEvery, func(p *player) error { return p.update(nodeLeaseKey(i), p.world.nodeLease(i, p.now), 0) })
		add(statusEvery, func(p *player) error { return p.update(nodeKey(i), p.world.node(i, p.now), 0) })
		event := 0
		add(eventEvery, func(p *player) error {
			event++
			name := fmt.Sprintf("node-%05d.%016x", i, event)
			return p.update("/registry/events/default/"+name, p.world.event(i, name, p.now), p.eventLease)
		})
	}
	for _, name := range leaders {
		add(leaderEvery, leader(name))
	}
	add(leaseEvery, leader(identityLease))
	add(masterEvery, (*player).renewMaster)
	all = append(all, &writer{0, grantEvery, (*player).grantForEvents})
	add(compactEvery, (*player).compact)
	heap.Init(&all)
	return &all
}

// perSecond is how many rows a cluster writes in a second.
func perSecond(nodes int) float64 {
	rate := func(every time.Duration) float64 { return 1 / every.Seconds() }
	each := rate(leaseEvery) + rate(statusEvery) + rate(eventEvery)
	return float64(nodes)*each + 2*rate(leaderEvery) + rate(leaseEvery) + 3*rate(masterEvery) + rate(grantEvery) + rate(compactEvery)
}

func nodeLeaseKey(i int) string { return fmt.Sprintf("/registry/leases/kube-node-lease/node-%05d", i) }
func nodeKey(i int) string      { return fmt.Sprintf("/registry/minions/node-%05d", i) }
func podName(i int) string      { return fmt.Sprintf("web-7c5ddbdf54-%06d", i) }
