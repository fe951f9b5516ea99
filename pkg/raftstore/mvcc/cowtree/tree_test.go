package cowtree

import (
	"bytes"
	"fmt"
	"testing"
)

type entry struct {
	key  []byte
	live bool
	n    int
}

func newEntries() *Tree[[]byte, *entry] {
	return New(bytes.Compare,
		func(e *entry) []byte { return e.key },
		func(e *entry) int {
			if e.live {
				return 1
			}
			return 0
		})
}

func podKey(i int) []byte {
	return fmt.Appendf(nil, "/registry/pods/namespace-%04d/some-deployment-%09d", i/1000, i)
}

func TestSetGetDelete(t *testing.T) {
	tree := newEntries()
	const n = 20000
	for i := range n {
		k := i * 7919 % n
		if _, replaced := tree.Set(&entry{key: podKey(k), live: k%3 != 0, n: k}); replaced {
			t.Fatalf("key %d was there already", k)
		}
	}
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
	live := 0
	for i := range n {
		e, ok := tree.Get(podKey(i))
		if !ok || e.n != i {
			t.Fatalf("get %d: %v, %v", i, e, ok)
		}
		if got := tree.WeightBefore(podKey(i)); got != live {
			t.Fatalf("weight before %d: %d, want %d", i, got, live)
		}
		if e.live {
			live++
		}
	}
	snap := tree.Snapshot()
	for i := range n {
		k := i * 104729 % n
		if old, ok := tree.Delete(podKey(k)); !ok || old.n != k {
			t.Fatalf("delete %d: %v, %v", k, old, ok)
		}
		if i%1000 == 0 {
			if err := tree.Check(); err != nil {
				t.Fatalf("after %d deletes: %v", i, err)
			}
		}
	}
	if tree.Len() != 0 || tree.Weight() != 0 || tree.level != 0 {
		t.Fatalf("%d items of weight %d at level %d are left", tree.Len(), tree.Weight(), tree.level)
	}
	if err := snap.Check(); err != nil {
		t.Fatal(err)
	}
	if snap.Len() != n || snap.Weight() != live {
		t.Fatalf("snapshot has %d items of weight %d", snap.Len(), snap.Weight())
	}
}

// TestSeparatorsAreCopies overwrites the keys of all items that were taken out:
// no separator may notice.
func TestSeparatorsAreCopies(t *testing.T) {
	tree := newEntries()
	const n = 20000
	var sorted []*entry
	for i := range n / 2 {
		sorted = append(sorted, &entry{key: podKey(i)})
	}
	tree.Build(sorted)
	for i := n / 2; i < n; i++ {
		tree.Set(&entry{key: podKey(i)})
	}
	spoil := func(e *entry) {
		for i := range e.key {
			e.key[i] = 0xff
		}
	}
	for i := range n {
		old, ok := tree.Set(&entry{key: podKey(i), live: true})
		if !ok {
			t.Fatalf("key %d is not there", i)
		}
		spoil(old)
	}
	for i := range n {
		if i%7 == 0 {
			continue
		}
		old, ok := tree.Delete(podKey(i))
		if !ok {
			t.Fatalf("key %d is not there", i)
		}
		spoil(old)
	}
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
	if want := (n + 6) / 7; tree.Len() != want || tree.Weight() != want {
		t.Fatalf("%d items of weight %d, want %d", tree.Len(), tree.Weight(), want)
	}
}
