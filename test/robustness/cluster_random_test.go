//go:build robustness

package robustness

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/netns"
)

var (
	seedFlag = flag.Uint64("seed", 0, "for the dice of the clients and of the faults; 0: another one each time")
	longFlag = flag.Duration("long", 0, "how long TestClusterRandom goes on with one cluster after the other; 0: one cluster")
)

// randomFaults is how many befall each cluster.
const randomFaults = 12

// TestClusterRandom has faults befall a cluster in an order that the seed decides, one after the other and some at a time.
func TestClusterRandom(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for end := time.Now().Add(*longFlag); ; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { random(t, seed) })
		if t.Failed() || !time.Now().Before(end) {
			return
		}
	}
}

// fault does something to a cluster, and answers what ends it.
type fault struct {
	name string
	make func(l *load, m *member) (undo func())
}

// faults happen to a member that the dice choose, every other time to the leader. None takes the majority away for long.
var faults = []fault{
	{"kill", func(_ *load, m *member) func() { m.kill(); return m.start }},
	{"kill while it starts", func(_ *load, m *member) func() { m.kill(); m.launch(); m.kill(); return m.start }},
	{"stop", func(_ *load, m *member) func() { m.stop(); return m.start }},
	{"freeze", func(_ *load, m *member) func() { m.freeze(); return m.thaw }},
	{"hung disk", func(_ *load, m *member) func() { return m.hangDisk() }},
	{"cut off", func(l *load, m *member) func() { l.c.cutOff(m); return l.c.heal }},
	{"mute", func(l *load, m *member) func() { l.c.mute(m); return l.c.heal }},
	{"deafen", func(l *load, m *member) func() { l.c.deafen(m); return l.c.heal }},
	{"one link cut", func(l *load, m *member) func() {
		l.c.net.SetBoth(m.host, l.c.others(m)[0].host, netns.Cut)
		return l.c.heal
	}},
	{"bad links", func(l *load, _ *member) func() {
		l.c.links(netns.Fault{Loss: 0.05, Delay: 2 * time.Millisecond, Jitter: 5 * time.Millisecond, Reorder: 0.1})
		return l.c.heal
	}},
	{"bad links and a kill", func(l *load, m *member) func() {
		l.c.links(netns.Fault{Loss: 0.02, Delay: time.Millisecond, Reorder: 0.1})
		m.kill()
		return func() { m.start(); l.c.heal() }
	}},
	{"frozen, killed", func(_ *load, m *member) func() {
		m.freeze()
		return func() { m.kill(); m.start() }
	}},
	{"kill all", func(l *load, _ *member) func() {
		for _, m := range l.c.members {
			m.kill()
		}
		for _, m := range l.c.members {
			m.launch()
		}
		return func() {
			for _, m := range l.c.members {
				m.awaitReady()
			}
		}
	}},
	{"away for a snapshot", func(l *load, m *member) func() {
		m.kill()
		l.more(800)
		return m.start
	}},
	{"cut off for a snapshot, killed while it gets it", func(l *load, m *member) func() {
		l.c.cutOff(m)
		l.more(800)
		return func() {
			l.c.heal()
			l.more(int64(l.rng.IntN(20)))
			m.kill()
			m.start()
		}
	}},
	{"defragment", func(_ *load, m *member) func() {
		ctx, cancel := patiently()
		defer cancel()
		if _, err := pb.NewMaintenanceClient(m.conn).Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
			m.t.Errorf("defragment %s: %v", m.name, err)
		}
		return func() {}
	}},
	{"move the leader", func(l *load, m *member) func() { l.c.moveTo(m); return func() {} }},
	{"replace", func(l *load, m *member) func() {
		l.remove(m)
		return func() { l.join(m.name + "x") }
	}},
}

func random(t *testing.T, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 1))
	size, flags := 3, slices.Clone(lagFlags)
	if dice.IntN(5) == 0 {
		size = 5
	}
	if dice.IntN(4) == 0 {
		flags = append(flags, "--pre-vote=false")
	}
	t.Logf("%d members, %v", size, flags)
	c := newCluster(t, size, flags...)
	l := startLoad(t, c, seed)
	for i := range randomFaults {
		l.more(int64(50 + l.rng.IntN(200)))
		f := faults[l.rng.IntN(len(faults))]
		m := c.members[l.rng.IntN(len(c.members))]
		if l.rng.IntN(2) == 0 {
			m = c.leader()
		}
		t.Logf("%d: %s, %s", i, f.name, m.name)
		undo := f.make(l, m)
		l.more(int64(50 + l.rng.IntN(300)))
		undo()
	}
	l.finish()
}
