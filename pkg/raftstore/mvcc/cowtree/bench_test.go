package cowtree

import (
	"math/rand/v2"
	"testing"
)

const benchItems = 200000

// benchTree answers a tree of 200k items whose keys have 50 bytes, and the
// items in a random order.
func benchTree() (*Tree[[]byte, *entry], []*entry) {
	items := make([]*entry, benchItems)
	r := rand.New(rand.NewPCG(1, 2))
	for _, i := range r.Perm(benchItems) { // scattered in memory
		items[i] = &entry{key: podKey(i), live: true, n: i}
	}
	tree := newEntries()
	tree.Build(items)
	r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return tree, items
}

func BenchmarkGet(b *testing.B) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tree.Get(items[i%benchItems].key)
	}
}

func BenchmarkWeightBefore(b *testing.B) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tree.WeightBefore(items[i%benchItems].key)
	}
}

func BenchmarkSet(b *testing.B) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tree.Set(items[i%benchItems])
	}
}

// One operation is a write; a snapshot is taken for every 64 of them, or for
// every one.
func BenchmarkSnapshotSet64(b *testing.B) { benchSnapshotSet(b, 64) }
func BenchmarkSnapshotSet1(b *testing.B)  { benchSnapshotSet(b, 1) }

func benchSnapshotSet(b *testing.B, batch int) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch == 0 {
			tree.Snapshot()
		}
		tree.Set(items[i%benchItems])
	}
}

func BenchmarkInsertScattered(b *testing.B) {
	_, items := benchTree()
	b.ReportAllocs()
	for b.Loop() {
		tree := newEntries()
		for _, e := range items {
			tree.Set(e)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchItems, "ns/item")
}

func BenchmarkDeleteSet(b *testing.B) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tree.Delete(items[i%benchItems].key)
		tree.Set(items[(i+benchItems/2)%benchItems])
		tree.Set(items[i%benchItems])
	}
}

func BenchmarkPage500(b *testing.B) {
	tree, items := benchTree()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := 0
		tree.AscendWeighted(items[i%benchItems].key, func(*entry) bool { n++; return n < 500 })
	}
}

func BenchmarkBuild(b *testing.B) {
	tree, _ := benchTree()
	sorted := make([]*entry, 0, benchItems)
	for e := range tree.All() {
		sorted = append(sorted, e)
	}
	b.ReportAllocs()
	for b.Loop() {
		tree.Build(sorted)
	}
}
