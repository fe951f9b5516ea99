package cowtree

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pair is an item whose key, weight and identity can be told apart.
type pair struct{ key, weight, id int }

func newPairs() *Tree[int, pair] {
	return New(cmp.Compare[int], func(p pair) int { return p.key }, func(p pair) int { return p.weight })
}

// twin is the dumb counterpart of a Tree: a sorted slice.
type twin []pair

func (w twin) find(k int) (int, bool) {
	return slices.BinarySearchFunc(w, k, func(p pair, k int) int { return cmp.Compare(p.key, k) })
}

func (w *twin) set(p pair) (old pair, replaced bool) {
	i, ok := w.find(p.key)
	if ok {
		old, (*w)[i] = (*w)[i], p
		return old, true
	}
	*w = slices.Insert(*w, i, p)
	return pair{}, false
}

func (w *twin) delete(k int) (old pair, ok bool) {
	i, ok := w.find(k)
	if !ok {
		return pair{}, false
	}
	old = (*w)[i]
	*w = slices.Delete(*w, i, i+1)
	return old, true
}

func (w twin) weightBefore(k int) (sum int) {
	i, _ := w.find(k)
	for _, p := range w[:i] {
		sum += p.weight
	}
	return sum
}

// between answers the items of [from, to) which pass.
func (w twin) between(from, to int, pass func(pair) bool) (out []pair) {
	for _, p := range w {
		if p.key >= from && p.key < to && pass(p) {
			out = append(out, p)
		}
	}
	return out
}

func all(pair) bool     { return true }
func heavy(p pair) bool { return p.weight > 0 }

const forever = 1 << 30

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// same compares a tree with its twin in every way there is to ask.
func same(t tester, tree *Tree[int, pair], w twin, probes ...int) {
	t.Helper()
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(tree.All()); !slices.Equal(got, w) {
		t.Fatalf("items differ:\n got %v\nwant %v", got, []pair(w))
	}
	if tree.Len() != len(w) || tree.Weight() != w.weightBefore(forever) {
		t.Fatalf("%d items of weight %d, want %d of %d", tree.Len(), tree.Weight(), len(w), w.weightBefore(forever))
	}
	for _, k := range probes {
		got, ok := tree.Get(k)
		var want pair
		i, found := w.find(k)
		if found {
			want = w[i]
		}
		if got != want || ok != found {
			t.Fatalf("get %d: %v, %v; want %v, %v", k, got, ok, want, found)
		}
		if got, want := tree.WeightBefore(k), w.weightBefore(k); got != want {
			t.Fatalf("weight before %d: %d, want %d", k, got, want)
		}
		if got, want := slices.Collect(tree.From(k)), w.between(k, forever, all); !slices.Equal(got, want) {
			t.Fatalf("from %d: %v, want %v", k, got, want)
		}
		for _, to := range probes {
			if got, want := slices.Collect(tree.Range(k, to)), w.between(k, to, all); !slices.Equal(got, want) {
				t.Fatalf("range [%d, %d): %v, want %v", k, to, got, want)
			}
			if got, want := slices.Collect(tree.WeightedRange(k, to)), w.between(k, to, heavy); !slices.Equal(got, want) {
				t.Fatalf("weighted range [%d, %d): %v, want %v", k, to, got, want)
			}
		}
		var got2 []pair
		tree.AscendWeighted(k, func(p pair) bool { got2 = append(got2, p); return true })
		if want := w.between(k, forever, heavy); !slices.Equal(got2, want) {
			t.Fatalf("weighted from %d: %v, want %v", k, got2, want)
		}
	}
}

// frozenPair is a snapshot and what it must show for ever.
type frozenPair struct {
	tree *Tree[int, pair]
	twin twin
}

// TestTwin drives a tree and its twin through runs of writes of every shape,
// with snapshots that must not see what comes after them.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const keys = 6000
		tree, w := newPairs(), twin{}
		var frozen []frozenPair
		id := 0
		set := func(t *rapid.T, k, weight int) {
			id++
			p := pair{k, weight, id}
			old, replaced := tree.Set(p)
			if wantOld, want := w.set(p); old != wantOld || replaced != want {
				t.Fatalf("set %v: %v, %v; want %v, %v", p, old, replaced, wantOld, want)
			}
		}
		run := func(t *rapid.T, do func(k, i int)) {
			from := rapid.IntRange(0, keys).Draw(t, "from")
			n := rapid.IntRange(0, 600).Draw(t, "n")
			step := rapid.SampledFrom([]int{1, 1, 2, 7, -1, -3, 997}).Draw(t, "step")
			for i := range n {
				do(((from+i*step)%keys+keys)%keys, i)
			}
		}
		weights := rapid.SampledFrom([]int{0, 1, 1, 1, 5, 1<<31 - 1})
		t.Repeat(map[string]func(*rapid.T){
			"set one":   func(t *rapid.T) { set(t, rapid.IntRange(0, keys).Draw(t, "key"), weights.Draw(t, "weight")) },
			"set a run": func(t *rapid.T) { x := weights.Draw(t, "weight"); run(t, func(k, _ int) { set(t, k, x) }) },
			"delete a run": func(t *rapid.T) {
				run(t, func(k, _ int) {
					old, ok := tree.Delete(k)
					if wantOld, want := w.delete(k); old != wantOld || ok != want {
						t.Fatalf("delete %d: %v, %v; want %v, %v", k, old, ok, wantOld, want)
					}
				})
			},
			"snapshot": func(t *rapid.T) {
				frozen = append(frozen, frozenPair{tree.Snapshot(), slices.Clone(w)})
			},
			"build": func(t *rapid.T) {
				w = w[:min(len(w), rapid.IntRange(0, 2*keys).Draw(t, "kept"))]
				tree.Build(w)
			},
			"": func(t *rapid.T) {
				probe := rapid.IntRange(-1, keys+1)
				same(t, tree, w, probe.Draw(t, "probe"), probe.Draw(t, "probe"))
				if len(frozen) > 0 {
					f := rapid.SampledFrom(frozen).Draw(t, "snapshot")
					same(t, f.tree, f.twin)
				}
			},
		})
		for _, f := range frozen {
			same(t, f.tree, f.twin, 0, keys/2)
		}
	})
}

var long = flag.Duration("long", 300*time.Millisecond, "how long TestLong runs")

// TestLong writes at random for a while, growing and shrinking in turn, and
// checks a batch at a time. -long=1h makes it a soak.
func TestLong(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	tree, w := newPairs(), twin{}
	var frozen []frozenPair
	deadline := time.Now().Add(*long)
	for batch := 0; batch < 20 || time.Now().Before(deadline); batch++ {
		grow := 3
		if batch/20%2 == 1 {
			grow = 1 // out of 4
		}
		for i := range 2000 {
			k := r.IntN(20000)
			if r.IntN(4) < grow {
				p := pair{k, r.IntN(3), batch<<20 | i}
				tree.Set(p)
				w.set(p)
			} else {
				tree.Delete(k)
				w.delete(k)
			}
		}
		if batch%5 == 0 {
			frozen = append(frozen, frozenPair{tree.Snapshot(), slices.Clone(w)})
		}
		same(t, tree, w, r.IntN(20000))
		if len(frozen) > 4 {
			same(t, frozen[0].tree, frozen[0].twin, r.IntN(20000))
			frozen = frozen[1:]
		}
	}
}

// TestOrders builds trees in orders in which names arrive, and wants the nodes
// filled as well as the order allows.
func TestOrders(t *testing.T) {
	const n = 50000
	for _, c := range []struct {
		name string
		key  func(i int) int
		fill float64
	}{
		{"ascending", func(i int) int { return i }, 0.7},
		{"descending", func(i int) int { return n - i }, 0.45},
		{"scattered", func(i int) int { return i * 7919 % n }, 0.6},
		{"runs", func(i int) int { return i%100*1000 + i/100 }, 0.45},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := newPairs()
			for i := range n {
				tree.Set(pair{key: c.key(i), weight: 1})
			}
			if err := tree.Check(); err != nil {
				t.Fatal(err)
			}
			if fill := fillOf(tree); fill < c.fill {
				t.Errorf("leaves are filled to %.2f, want %.2f", fill, c.fill)
			}
		})
	}
	tree := newPairs()
	items := make([]pair, n)
	for i := range items {
		items[i].key = i
	}
	tree.Build(items)
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
	if fill := fillOf(tree); fill < 0.85 {
		t.Errorf("built leaves are filled to %.2f", fill)
	}
}

func fillOf[K, T any](t *Tree[K, T]) float64 {
	leaves := 0
	var count func(in *inner[K, T], level int)
	count = func(in *inner[K, T], level int) {
		if level == 1 {
			leaves += in.n
			return
		}
		for _, p := range in.kids[:in.n] {
			count(asInner[K, T](p), level-1)
		}
	}
	if t.level == 0 {
		return float64(t.len) / leafMax
	}
	count(asInner[K, T](t.root), t.level)
	return float64(t.len) / float64(leaves*leafMax)
}

func TestBuildSizes(t *testing.T) {
	for n := range 4 * buildLeaf {
		tree, w := newPairs(), twin{}
		for i := range n {
			w = append(w, pair{i, i % 3, i})
		}
		tree.Build(w)
		same(t, tree, w, n/2)
	}
	for _, n := range []int{buildLeaf*buildInner - 1, buildLeaf * buildInner, buildLeaf*buildInner + 1, 2*buildLeaf*buildInner + 7} {
		tree, w := newPairs(), twin{}
		for i := range n {
			w = append(w, pair{i, i % 3, i})
		}
		tree.Build(w)
		same(t, tree, w, n/2)
	}
}

func TestWhatPanics(t *testing.T) {
	tooHeavy := uint32(1) << 31 // negative where an int has 32 bits
	for name, f := range map[string]func(*Tree[int, pair]){
		"set on a snapshot":    func(tree *Tree[int, pair]) { tree.Snapshot().Set(pair{}) },
		"delete on a snapshot": func(tree *Tree[int, pair]) { tree.Snapshot().Delete(1) },
		"build on a snapshot":  func(tree *Tree[int, pair]) { tree.Snapshot().Build(nil) },
		"negative weight":      func(tree *Tree[int, pair]) { tree.Set(pair{weight: -1}) },
		"weight too large":     func(tree *Tree[int, pair]) { tree.Set(pair{weight: int(tooHeavy)}) },
		"build out of order":   func(tree *Tree[int, pair]) { tree.Build([]pair{{key: 2}, {key: 1}}) },
		"build with a double":  func(tree *Tree[int, pair]) { tree.Build([]pair{{key: 2}, {key: 2}}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(newPairs())
		})
	}
}

// TestReadsDoNotAllocate covers what a request does on its way.
func TestReadsDoNotAllocate(t *testing.T) {
	tree := newEntries()
	for i := range 20000 {
		tree.Set(&entry{key: podKey(i), live: i%2 == 0})
	}
	from, to := podKey(5000), podKey(6000)
	none := []byte("none")
	n := 0
	for name, f := range map[string]func(){
		"get":            func() { tree.Get(from) },
		"weight before":  func() { n += tree.WeightBefore(from) },
		"range":          func() { tree.AscendRange(from, to, func(*entry) bool { n++; return true }) },
		"weighted range": func() { tree.AscendWeightedRange(from, to, func(*entry) bool { n++; return true }) },
		"iterator": func() {
			for range tree.WeightedRange(from, to) {
				n++
			}
		},
		"delete of nothing": func() { tree.Delete(none) },
	} {
		if got := testing.AllocsPerRun(10, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

// TestBatchCopiesOnce counts the nodes that a batch of writes makes: each on
// its paths once, however many writes go through it.
func TestBatchCopiesOnce(t *testing.T) {
	tree := newEntries()
	items := make([]*entry, 100000)
	for i := range items {
		items[i] = &entry{key: podKey(i), live: true}
	}
	tree.Build(items)
	tree.Snapshot()
	first := math.Inf(1)
	for range 5 { // the runtime may allocate something beside one
		first = min(first, testing.AllocsPerRun(1, func() {
			tree.Snapshot()
			for i := range 50 {
				tree.Set(items[40000+i])
			}
		}))
	}
	// The snapshot itself, and per level the nodes that 50 neighbours are in.
	if want := float64(1 + 2*(tree.level+1)); first > want {
		t.Errorf("%v allocations for a batch of neighbours, want %v at most", first, want)
	}
	again := testing.AllocsPerRun(10, func() {
		for i := range 50 {
			tree.Set(items[40000+i])
		}
	})
	if again != 0 {
		t.Errorf("%v allocations for a batch that copied before", again)
	}
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotsAreReadWhileWritten gives the race detector something to find.
func TestSnapshotsAreReadWhileWritten(t *testing.T) {
	tree, w := newPairs(), twin{}
	for i := range 5000 {
		tree.Set(pair{i, 1, 0})
		w.set(pair{i, 1, 0})
	}
	done := make(chan error)
	const readers = 4
	for range readers {
		snap := tree.Snapshot()
		want := slices.Clone(w)
		go func() {
			for range 5 {
				if got := slices.Collect(snap.All()); !slices.Equal(got, want) {
					done <- fmt.Errorf("a snapshot changed")
					return
				}
			}
			done <- snap.Check()
		}()
		for i := range 1000 {
			tree.Set(pair{i * 3, 2, i})
			w.set(pair{i * 3, 2, i})
			tree.Delete(i * 4)
			w.delete(i * 4)
		}
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
