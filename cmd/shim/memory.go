package main

import (
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The policy for the garbage collector, all of it:
//
//   - GOGC and GOMEMLIMIT of the environment win, as everywhere in Go.
//   - Otherwise the collector leaves the heap a headroom over what is alive,
//     which gcHeadroom picks anew after each collection. The store is most of the
//     heap and lives long: a fixed percentage is either much too little for a
//     small store or, for a large one, memory that is never used.
//   - While collections take more than gcShareMax of the machine, as under a
//     storm of writes to a large store, the headroom doubles with each, up to what
//     is alive; it is halved when they take little, and is what it was once there
//     has been none for gcQuiet: then one is made.
//   - A collection begins when gcAheadPercent of the headroom is allocated. Go's
//     own begins that early under much garbage only; where there was little of
//     late, it leaves 4 MiB for all of the marking, and when a burst begins then,
//     whoever allocates marks nearly all of it, and others wait for that.
//   - Memory beyond that headroom, left by a burst, goes back to the system in the
//     background: the memory limit is kept a little above what the heap will
//     need, which is what Go's scavenger goes by. Without it, a tenth of the heap
//     and what a burst has left would stay. It follows what is returned, and is
//     never below what is not: over its limit, the heap is collected at once, by
//     whoever allocates. The scavenger begins behind a collection only, and leaves
//     what was in use in the one before; so in a quiet second another is made
//     if more than excessPercent of what is needed is still mapped.
//   - Under a limit, --memory-limit or that of the cgroup, the collector works
//     harder from memoryLimitPercent of it on, rather than being killed at it. The
//     store is told what each collection has found, and lets values leave memory
//     before that is needed (package compact, Memory). Without a limit half of the
//     machine's memory is one for values only: the other half is for the API
//     server and for the kernel's cache.
//   - While a member loads its data nothing becomes garbage, and collections
//     would only mark it again and again: until then the collector is Go's own.
const (
	memoryLimitPercent = 90

	// A collection costs about as much as there is to mark, 0.3 µs per object of
	// the store, and comes each time the headroom was allocated.
	headroomBytesMin  = 4 << 20  // as Go itself has it
	headroomBytesWide = 64 << 20 // up to here headroomSmallPercent of what is alive
	// headroomSmallPercent leaves 30 MB of objects in 80 MB of memory.
	headroomSmallPercent = 67
	// headroomLargePercent is for heaps of which it is more than headroomBytesWide.
	headroomLargePercent = 10

	gcShareMax = 0.05 // of all processors
	gcShareMin = 0.01
	gcQuiet    = time.Second

	// The heap is looked at each gcLook. gcAheadPercent is how much of its headroom
	// is allocated when a collection is begun. What is left has to do for what a
	// burst allocates until then and while the collection marks.
	gcLook         = 200 * time.Millisecond
	gcAheadPercent = 65

	excessPercent = 10

	// slackPercent is how much more than its goal the heap may keep. The scavenger
	// aims at scavengerPercent of the memory limit (runtime, reduceExtraPercent).
	slackPercent     = 2
	scavengerPercent = 95
)

// newPolicy sets the soft limit; start does the rest.
func newPolicy(log *slog.Logger, limit memoryLimit) *policy {
	p := &policy{most: math.MaxInt64, use: readHeapUse, share: (&gcClock{at: time.Now()}).share, look: gcLook}
	if os.Getenv("GOMEMLIMIT") == "" {
		p.limit = func(bytes int64) { debug.SetMemoryLimit(bytes) }
		if limit.hard {
			p.most = limit.bytes / 100 * memoryLimitPercent
			p.limit(p.most)
		}
	}
	log.Info("memory limit", "limit-bytes", limit.bytes, "from", limit.source, "soft-limit-bytes", p.most)
	if os.Getenv("GOGC") == "" {
		p.percent = func(percent int) { debug.SetGCPercent(percent) }
	}
	return p
}

// start lets the headroom follow the live heap from now on, and has fit told what
// is alive and what the runtime uses beside the heap.
func (p *policy) start(fit func(heap, other int64)) {
	p.fit = fit
	go p.keep()
}

// policy follows the live heap.
type policy struct {
	percent func(int) // sets GOGC; nil if that is the user's
	fit     func(heap, other int64)
	limit   func(int64)   // sets the memory limit; nil if that is the user's
	most    int64         // the limit is never above it
	limited int64         // the limit that was set last
	room    uint64        // of the heap, when it has grown by its headroom
	idle    time.Duration // how long a quiet time has to be for a collection so that more is returned
	use     func() heapUse
	share   func() float64 // what collections took of the machine since the last call
	look    time.Duration  // how often to look whether to begin a collection; 0: never
}

// keep sets GOGC and the limit at the beginning and after each collection. It
// never returns.
func (p *policy) keep() {
	ended := make(chan struct{}, 1)
	wide := 0
	for {
		p.set(wide)
		runtime.AddCleanup(new(cycleMark), func(ended chan struct{}) { ended <- struct{}{} }, ended)
		wide = p.await(ended, wide)
	}
}

// set sets GOGC and the limit for what is alive now.
func (p *policy) set(wide int) {
	u := p.use()
	p.fit(int64(u.live), int64(u.other))
	if p.percent == nil {
		return
	}
	headroom := gcHeadroom(u.live, wide)
	p.percent(gcPercent(u.live, headroom))
	p.room = u.live + headroom
	p.bound(u)
}

// bound sets the limit, if it is to change by more than a little.
func (p *policy) bound(u heapUse) {
	if p.limit == nil {
		return
	}
	limit := min(p.most, softLimit(p.room, u.other, u.mapped))
	if change := limit - p.limited; max(change, -change) > p.limited/100 {
		p.limit(limit)
		p.limited = limit
	}
}

// await waits for the end of a collection, and answers how often the headroom is
// to be doubled from now on. It begins one ahead of Go's own. A wide headroom
// becomes the usual one when there is none for long, behind a collection of its
// own: a heap that is above its goal has whoever allocates next mark all of it,
// and all others wait for that.
func (p *policy) await(ended <-chan struct{}, wide int) int {
	var quiet, look <-chan time.Time // never
	if wide > 0 {
		quiet = time.After(gcQuiet)
	}
	if p.percent != nil && p.look > 0 {
		tick := time.NewTicker(p.look)
		defer tick.Stop()
		look = tick.C
	}
	since, begun := newHeapGrowth(), time.Now()
	for {
		select {
		case <-ended:
			return widened(wide, p.share())
		case <-quiet:
			runtime.GC() // towards the wide goal, which is far
			<-ended
			p.share() // begins anew
			return 0
		case <-look:
			u := p.use()
			p.bound(u)
			if since.due() || p.returnable(u, time.Since(begun)) {
				runtime.GC()
			}
		}
	}
}

// returnable tells whether a collection is to be made so that more is returned
// to the system: in a quiet time, each of which has to be twice as long as the
// one before, until what is mapped was near what is needed.
func (p *policy) returnable(u heapUse, quiet time.Duration) bool {
	need := neededBytes(p.room, u.other)
	if p.limit == nil || u.mapped <= need+need/100*excessPercent {
		p.idle = gcQuiet
		return false
	}
	if quiet < max(p.idle, gcQuiet) {
		return false
	}
	p.idle = 2 * max(p.idle, gcQuiet)
	return true
}

// heapGrowth is what was allocated since a collection.
type heapGrowth struct {
	use    []metrics.Sample
	allocs uint64 // when the collection had ended
	pauses uint64 // of collections, until then
}

func newHeapGrowth() *heapGrowth {
	g := &heapGrowth{use: []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/heap/goal:bytes"},
		{Name: "/sched/pauses/total/gc:seconds"},
	}}
	g.allocs, g.pauses, _ = g.read()
	return g
}

func (g *heapGrowth) read() (allocs, pauses, headroom uint64) {
	metrics.Read(g.use)
	for _, n := range g.use[3].Value.Float64Histogram().Counts {
		pauses += n
	}
	live, goal := g.use[1].Value.Uint64(), g.use[2].Value.Uint64()
	return g.use[0].Value.Uint64(), pauses, goal - min(goal, live)
}

// due tells whether a collection is to be begun. One that is under way has paused
// the program to begin; another would follow it at once.
func (g *heapGrowth) due() bool {
	allocs, pauses, headroom := g.read()
	return pauses == g.pauses && headroom >= headroomBytesMin && allocs-g.allocs >= headroom/100*gcAheadPercent
}

// widened is how often the headroom is doubled after a collection.
func widened(wide int, share float64) int {
	const most = 4 // sixteen times the tenth of a large heap is more than what is alive
	switch {
	case share > gcShareMax:
		return min(wide+1, most)
	case share < gcShareMin:
		return max(wide-1, 0)
	}
	return wide
}

// gcClock measures what collections take of the machine.
type gcClock struct {
	at   time.Time
	used float64 // CPU seconds until then
}

func (c *gcClock) share() float64 {
	use := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}, // nobody else wanted that
	}
	metrics.Read(use)
	now, used := time.Now(), use[0].Value.Float64()-use[1].Value.Float64()
	share := (used - c.used) / (now.Sub(c.at).Seconds() * float64(runtime.GOMAXPROCS(0)))
	c.at, c.used = now, used
	return share
}

// cycleMark is an object that nothing holds: its cleanup tells that a collection
// has ended. It has a pointer, as Go packs small objects without one together.
type cycleMark struct{ _ *cycleMark }

// gcHeadroom is how many bytes the heap may grow beyond the live ones until the
// next collection, doubled wide times but not beyond what is alive.
func gcHeadroom(live uint64, wide int) uint64 {
	small := min(live/100*headroomSmallPercent, headroomBytesWide)
	usual := max(headroomBytesMin, small, live/100*headroomLargePercent)
	return max(usual, min(live, usual<<wide))
}

// gcPercent is a headroom as GOGC has it, to the nearest percent, and bounded
// for a heap with next to nothing in it.
func gcPercent(live, headroom uint64) int {
	const most = 400
	return int(min(most, max(1, (headroom*100+live/2)/max(1, live))))
}

// softLimit is the limit at which the scavenger leaves a heap its room and a
// slack, beside other bytes of the runtime. It is above what is mapped, all of
// which may be in use.
func softLimit(room, other, mapped uint64) int64 {
	return int64(max(neededBytes(room, other)/scavengerPercent*100, mapped+mapped/100*slackPercent))
}

// neededBytes is what is to stay mapped for a heap with its room and a slack,
// beside other bytes of the runtime.
func neededBytes(room, other uint64) uint64 { return room + room/100*slackPercent + other }

// heapUse is how many bytes the last collection has found alive, how many the
// runtime uses that are not heap objects: what cannot be returned; and how many
// it has from the system.
type heapUse struct{ live, other, mapped uint64 }

func readHeapUse() heapUse {
	use := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(use)
	u := heapUse{live: use[0].Value.Uint64()}
	u.mapped = use[1].Value.Uint64() - min(use[1].Value.Uint64(), use[2].Value.Uint64())
	u.other = u.mapped - min(u.mapped, use[3].Value.Uint64()+use[4].Value.Uint64())
	return u
}
