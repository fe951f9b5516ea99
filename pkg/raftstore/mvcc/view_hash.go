package mvcc

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"slices"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hashCheckEvery is how many rows are hashed between two looks at the context.
const hashCheckEvery = 4096

// HashKV answers the hash of all rows up to a revision (0: the current one)
// that the compaction which is in effect leaves, as etcd 3.7 computes it for
// the same content; with it the compacted revision and the revision hashed.
// Errors: ErrCompacted, ErrFutureRev, the context's.
//
// (etcd answers a hash it has kept from the compaction itself when it is asked
// for exactly the compacted revision. That one covers the rows which the
// compaction removed, and is not given here.)
func (v *View) HashKV(ctx context.Context, rev Revision) (hash uint32, compacted, hashed Revision, err error) {
	switch {
	case rev > 0 && (rev < v.compacted || v.overtaken(rev)):
		return 0, 0, 0, ErrCompacted
	case rev > v.revision:
		return 0, 0, 0, ErrFutureRev
	case rev == 0:
		rev = v.revision
	}
	rows := &LazyReader{Begin: v.latest.begin}
	defer rows.Close()
	h := rowHasher{ctx: ctx, rows: rows, sum: crc32.Update(0, castagnoli, []byte("key"))}
	base, oldest := v.baseRows(rev)
	told := 0
	for i, x := range base {
		if i == told {
			told += h.tell(base[i:])
		}
		if !h.add(x) {
			break
		}
	}
	v.history.visit(v.compacted+1, rev+1, h.add)
	switch {
	case rev > 0 && v.overtaken(oldest), errors.Is(h.err, ErrRowGone):
		return 0, 0, 0, ErrCompacted
	case h.err != nil:
		return 0, 0, 0, h.err
	}
	return h.sum, v.compacted, rev, nil
}

// baseRows answers, by revision, the rows at or below the compacted revision
// that count at rev: those of the keys that are still the same at rev. Where no
// key is live at rev, etcd does not look and takes what is live at the
// compacted revision. (A tombstone at the compacted revision is kept in the
// bucket but never hashed.) oldest is the oldest revision that was read at.
func (v *View) baseRows(rev Revision) (base []*Version, oldest Revision) {
	if v.compacted < 0 || rev < 0 {
		return nil, rev
	}
	oldest = rev
	some := false
	v.keys.AscendFirst(func(x *Version) bool {
		if x = x.at(rev); x != nil {
			some = true
			if x.mod <= v.compacted {
				base = append(base, x)
			}
		}
		return true
	})
	if !some {
		oldest = min(rev, v.compacted)
		v.keys.AscendFirst(func(x *Version) bool {
			if x = x.at(v.compacted); x != nil && x.mod <= rev {
				base = append(base, x)
			}
			return true
		})
	}
	slices.SortFunc(base, func(a, b *Version) int {
		return cmp.Or(cmp.Compare(a.mod, b.mod), cmp.Compare(a.sub, b.sub))
	})
	return base, oldest
}

type rowHasher struct {
	ctx   context.Context
	rows  RowReader
	sum   uint32
	count int
	key   []byte
	value []byte
	ahead []RowAhead
	err   error
}

// tell has the disk begin with the rows that come next, and answers how many those
// are.
func (h *rowHasher) tell(vs []*Version) (n int) {
	h.ahead = h.ahead[:0]
	for size := 0; n < len(vs) && n < hashAheadRows && size < hashAheadBytes; n++ {
		e := vs[n].Encoding()
		h.ahead = e.AppendAhead(h.ahead)
		size += e.Len()
	}
	h.rows.ReadAhead(h.ahead)
	return n
}

func (h *rowHasher) add(v *Version) bool {
	if h.count++; h.count%hashCheckEvery == 0 && h.err == nil {
		h.err = h.ctx.Err()
	}
	if h.err != nil {
		return false
	}
	value := v.RowValue()
	if value == nil {
		if h.value, h.err = v.Encoding().Append(h.value[:0], h.rows); h.err != nil {
			return false
		}
		value = h.value
	}
	h.key = v.RowKey().Append(h.key[:0])
	h.sum = crc32.Update(h.sum, castagnoli, h.key)
	h.sum = crc32.Update(h.sum, castagnoli, value)
	return true
}
