package mvcc

import (
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// newestKeys knows, while rows are loaded, the newest row of each key among those
// at or below a compacted revision that have been read. An older one of its key is
// dead, and needs no version: nothing can read it, and replaying the log does not
// look at it. Rows are read from the newest parts to the oldest, so nearly all that
// are dead are found. Those that are not, as two parts are read at the same time,
// are removed as any compaction removes them.
//
// It is a table of pointers with linear probing, which all who read share without a
// lock. A place that has a key keeps it; only its row becomes a newer one.
type newestKeys struct {
	bound Revision // compacted
	mask  uint64
	slots []atomic.Pointer[keyed]
}

// newNewestKeys has room for rows keys; without a compaction, or if it is not known
// how many there are, it is nil, and finds nothing.
func newNewestKeys(bound Revision, rows int) *newestKeys {
	if bound <= 0 || rows == 0 {
		return nil
	}
	n := 1
	for n < 2*rows {
		n *= 2
	}
	return &newestKeys{bound: bound, mask: uint64(n - 1), slots: make([]atomic.Pointer[keyed], n)}
}

// dead says of each row, at most LoadBatchRows of them, whether a newer one of its key
// has been read which makes it dead. To find a key is to wait for memory three
// times; in one pass for each of these the rows of a batch wait together.
func (t *newestKeys) dead(rows []Row, at []RowKey) (dead [LoadBatchRows]bool) {
	if t == nil {
		return dead
	}
	var keys [LoadBatchRows][]byte
	var found [LoadBatchRows]*keyed
	for i, r := range rows {
		if at[i].Main > t.bound {
			continue
		}
		if key, ok := rowKeyOf(r.Value); ok {
			keys[i], found[i] = key, t.slots[xxhash.Sum64(key)&t.mask].Load()
		}
	}
	var newer [LoadBatchRows]bool
	for i, k := range found {
		newer[i] = k != nil && k.v.mod >= at[i].Main
	}
	for i, k := range found {
		switch {
		case k == nil:
		case k.key != string(keys[i]):
			k = t.find(keys[i])
			dead[i] = k != nil && at[i].less(k.v.RowKey())
		default:
			dead[i] = newer[i] && at[i].less(k.v.RowKey())
		}
	}
	return dead
}

// find answers the entry of a key, or nil.
func (t *newestKeys) find(key []byte) *keyed {
	at := xxhash.Sum64(key)
	for range t.slots {
		k := t.slots[at&t.mask].Load()
		if k == nil || k.key == string(key) {
			return k
		}
		at++
	}
	return nil
}

// add takes the row of a version.
func (t *newestKeys) add(k *keyed) {
	if t == nil || k.v.mod > t.bound {
		return
	}
	at := xxhash.Sum64String(k.key)
	for tries := uint64(0); tries <= t.mask; { // more keys than were expected are not found
		slot := &t.slots[at&t.mask]
		old := slot.Load()
		switch {
		case old == nil, old.key == k.key && old.v.RowKey().less(k.v.RowKey()):
			if slot.CompareAndSwap(old, k) {
				return
			} // somebody else was faster: look again
		case old.key == k.key:
			return
		default:
			at++
			tries++
		}
	}
}

// keyedArena hands out places for versions that stay where they are.
type keyedArena struct {
	chunks [][]keyed
	n      int
}

func (a *keyedArena) append(k keyed) *keyed {
	last := len(a.chunks) - 1
	if last < 0 || len(a.chunks[last]) == cap(a.chunks[last]) {
		a.chunks = append(a.chunks, make([]keyed, 0, loadChunk))
		last++
	}
	a.chunks[last] = append(a.chunks[last], k)
	a.n++
	return &a.chunks[last][len(a.chunks[last])-1]
}
