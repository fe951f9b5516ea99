package main

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"
	"time"
)

func TestCgroupLimit(t *testing.T) {
	const max, old, half, one = "max\n", "9223372036854771712\n", "536870912\n", "1073741824\n"
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":                 {nil, 0},
		"no limit":             {map[string]string{"sys/fs/cgroup/memory.max": max}, 0},
		"no limit, version 1":  {map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": old}, 0},
		"container":            {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": half}, 512 << 20},
		"container, version 1": {map[string]string{"proc/self/cgroup": "5:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": half}, 512 << 20},
		"unit": {map[string]string{"proc/self/cgroup": "0::/system.slice/etcd.service\n",
			"sys/fs/cgroup/system.slice/etcd.service/memory.max": one, "sys/fs/cgroup/system.slice/memory.max": max}, 1 << 30},
		"slice": {map[string]string{"proc/self/cgroup": "0::/system.slice/etcd.service\n",
			"sys/fs/cgroup/system.slice/etcd.service/memory.max": one, "sys/fs/cgroup/system.slice/memory.max": half}, 512 << 20},
		"unit, version 1": {map[string]string{"proc/self/cgroup": "7:cpu,cpuacct:/a\n5:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": one}, 1 << 30},
	} {
		root := fstest.MapFS{}
		for file, content := range tc.files {
			root[file] = &fstest.MapFile{Data: []byte(content)}
		}
		if got, ok := cgroupLimit(root); ok != (tc.want != 0) || ok && got != tc.want {
			t.Errorf("%s: %d %v, want %d", name, got, ok, tc.want)
		}
	}
}

func TestMachineMemory(t *testing.T) {
	root := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:       24593024 kB\nMemFree:        1 kB\n")}}
	if got := machineMemory(root); got != 24593024<<10 {
		t.Errorf("%d bytes", got)
	}
}

func TestHeadroom(t *testing.T) {
	for _, tc := range []struct{ live, headroom uint64 }{
		{0, 4 << 20},
		{4 << 20, 4 << 20},
		{30e6, 20.1e6},
		{64e6, 42.88e6},
		{120e6, 64 << 20},
		{500e6, 64 << 20},
		{640e6, 64 << 20},
		{8e9, 800e6},
	} {
		if got := gcHeadroom(tc.live, 0); got != tc.headroom {
			t.Errorf("headroom over %d live bytes: %d, want %d", tc.live, got, tc.headroom)
		}
	}
	for _, tc := range []struct {
		live    uint64
		percent int
	}{{0, 400}, {500_000, 400}, {30e6, 67}, {650e6, 10}, {1<<30 + 1, 10}} {
		if got := gcPercent(tc.live, gcHeadroom(tc.live, 0)); got != tc.percent {
			t.Errorf("GOGC for %d live bytes: %d, want %d", tc.live, got, tc.percent)
		}
	}
}

// Under a storm the headroom doubles up to what is alive, and it comes back.
func TestHeadroomWidens(t *testing.T) {
	const live = 600 << 20
	wide, before := 0, gcHeadroom(live, 0)
	for range 10 {
		wide = widened(wide, 0.2)
		got := gcHeadroom(live, wide)
		if got < before || got > live {
			t.Errorf("headroom %d after %d", got, before)
		}
		before = got
	}
	if before != live {
		t.Errorf("headroom %d over %d live bytes however much collections cost", before, live)
	}
	if again := widened(wide, 0.03); again != wide {
		t.Errorf("%d after %d, though collections cost what they may", again, wide)
	}
	for range 10 {
		wide = widened(wide, 0)
	}
	if got := gcHeadroom(live, wide); got != gcHeadroom(live, 0) {
		t.Errorf("headroom stays at %d", got)
	}
	if got := gcHeadroom(1<<20, 4); got != headroomBytesMin {
		t.Errorf("headroom %d over next to nothing", got)
	}
}

// What is returned by the scavenger must leave the heap its headroom, and not
// much more.
func TestMemoryLimit(t *testing.T) {
	for _, live := range []uint64{3e6, 30e6, 640e6, 20e9} {
		const other = 20e6
		need := int64(live+gcHeadroom(live, 0)) + other
		kept := softLimit(live+gcHeadroom(live, 0), other, live) / 100 * scavengerPercent
		if kept < need || kept > need+need/25 {
			t.Errorf("%d live bytes, headroom included: need %d, %d are kept", live, need, kept)
		}
	}
}

// GOGC and the limit must follow the live heap up and down. A test that does not
// end is one that has failed.
func TestPolicyFollowsHeap(t *testing.T) {
	type setting struct {
		percent int
		limit   int64
	}
	var now setting
	settings := make(chan setting, 1)
	returned := func() heapUse { // as if all that is free went back to the system at once
		settings <- now
		u := readHeapUse()
		u.mapped = 0
		return u
	}
	p := policy{most: 1 << 30, fit: func(int64, int64) {}, use: returned, share: func() float64 { return 0 }}
	p.percent = func(percent int) { now.percent = percent }
	p.limit = func(bytes int64) { now.limit = bytes }
	go p.keep()
	var small setting
	collectUntil := func(ok func(setting) bool) {
		for {
			runtime.GC()
			select {
			case s := <-settings:
				if ok(s) {
					return
				}
			default:
			}
		}
	}
	collectUntil(func(s setting) bool { small = s; return s.limit > 0 })
	ballast := make([]byte, 400<<20) // never written to: address space only
	collectUntil(func(s setting) bool { return s.percent <= 16 && s.limit > 464<<20 && s.limit < 600<<20 })
	more := make([]byte, 800<<20)
	collectUntil(func(s setting) bool { return s.percent == headroomLargePercent && s.limit == p.most })
	runtime.KeepAlive(ballast)
	runtime.KeepAlive(more)
	collectUntil(func(s setting) bool { return s.percent > 16 && s.limit < small.limit+64<<20 })
}

// Over the memory limit Go collects at once, and whoever allocates marks: where much of the heap has died, the limit must not be below what
// is still mapped. It comes down as that is returned, and is never above what it may be.
func TestLimitFollowsReturnedMemory(t *testing.T) {
	const most = 800 << 20
	var limit int64
	now := heapUse{live: 300 << 20, other: 20 << 20, mapped: 390 << 20}
	p := policy{most: most, fit: func(int64, int64) {}, use: func() heapUse { return now }, percent: func(int) {},
		limit: func(bytes int64) { limit = bytes }}
	p.set(0)
	for now.live = 90 << 20; now.mapped > 160<<20; now.mapped -= 10 << 20 {
		p.set(0)
		if limit < int64(now.mapped) {
			t.Errorf("limit %d, %d bytes are mapped", limit, now.mapped)
		}
	}
	p.bound(now)
	if need := softLimit(p.room, now.other, 0); limit > need+need/50 {
		t.Errorf("limit %d, needed %d, when %d bytes are mapped", limit, need, now.mapped)
	}
	now.mapped = 2 * most
	if p.set(0); limit != most {
		t.Errorf("limit %d, may be %d", limit, int64(most))
	}
}

// A collection must begin before the heap has used up its headroom, and not while another is under way or behind it.
func TestCollectionAhead(t *testing.T) {
	settings, looks := make(chan uint32), make(chan struct{}, 2)
	p := policy{most: 1 << 30, fit: func(int64, int64) {}, share: func() float64 { return 0 }, look: time.Millisecond}
	p.use = func() heapUse {
		select {
		case looks <- struct{}{}:
		default:
		}
		return readHeapUse()
	}
	p.percent = func(int) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		settings <- m.NumForcedGC
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	ballast := make([]byte, 400<<20) // never written to: address space only
	runtime.GC()
	go p.keep()
	before := <-settings
	<-looks // to set GOGC
	<-looks // whether a collection is due
	_, _, headroom := newHeapGrowth().read()
	more := make([]byte, headroom/100*67) // Go's own begins at 70 % or later
	if after := <-settings; after != before+1 {
		t.Errorf("%d collections were asked for, want 1", after-before)
	}
	runtime.KeepAlive(ballast)
	runtime.KeepAlive(more)
}

// A wide headroom must not become narrow while the heap is above the goal that this makes: only behind a collection.
func TestPolicyNarrowsBehindCollection(t *testing.T) {
	type setting struct {
		percent int
		forced  uint32 // collections that were asked for until then
	}
	settings := make(chan setting, 1)
	p := policy{most: 1 << 30, fit: func(int64, int64) {}, limit: func(int64) {}, use: readHeapUse, share: func() float64 { return 1 }}
	p.percent = func(percent int) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		settings <- setting{percent, m.NumForcedGC}
	}
	ballast := make([]byte, 400<<20) // never written to: address space only
	runtime.GC()
	go p.keep()
	narrow, wide := <-settings, setting{}
	for wide.percent == 0 {
		runtime.GC()
		select {
		case wide = <-settings:
		default:
		}
	}
	again := <-settings
	for again.percent >= wide.percent && again.percent > narrow.percent { // another collection came first
		wide, again = again, <-settings
	}
	if wide.percent <= narrow.percent || again.percent >= wide.percent {
		t.Errorf("headroom %d%%, %d%% behind an expensive collection, %d%% behind a quiet second", narrow.percent, wide.percent, again.percent)
	}
	if again.forced == wide.forced {
		t.Error("the headroom became narrow without a collection")
	}
	runtime.KeepAlive(ballast)
}

// What a burst has left must go back to the system though nothing more is allocated. A test that does not end is one that has failed.
func TestQuietHeapReturnsBurst(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	var kept, burst [][]byte
	for range 2000 {
		kept = append(kept, bytes.Repeat([]byte{1}, 30<<10))
		for range 3 {
			burst = append(burst, bytes.Repeat([]byte{1}, 30<<10))
		}
	}
	looks, enough := make(chan heapUse), make(chan struct{})
	p := policy{most: 1 << 30, fit: func(int64, int64) {}, share: func() float64 { return 0 }, look: 10 * time.Millisecond}
	p.percent = func(percent int) { debug.SetGCPercent(percent) }
	p.limit = func(bytes int64) { debug.SetMemoryLimit(bytes) }
	p.use = func() heapUse {
		u := readHeapUse()
		select {
		case looks <- u:
		case <-enough:
			runtime.Goexit()
		}
		return u
	}
	runtime.KeepAlive(burst)
	burst = nil
	runtime.GC()
	go p.keep()
	defer close(enough)
	for u := range looks {
		if need := neededBytes(u.live+gcHeadroom(u.live, 0), u.other); u.mapped < need+need/5 {
			break
		}
	}
	runtime.KeepAlive(kept)
}
