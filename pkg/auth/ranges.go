package auth

import (
	"bytes"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/authpb"
)

// keyRange is the keys in [from, to); to nil: all from from on.
type keyRange struct{ from, to []byte }

// ranges are in order, and neither overlap nor touch.
type ranges []keyRange

// rangeOf is what a key and a range end of etcd's mean.
func rangeOf(key, end []byte) keyRange {
	switch {
	case len(end) == 0:
		return keyRange{key, append(bytes.Clone(key), 0)}
	case openEnded(end):
		return keyRange{key, nil}
	}
	return keyRange{key, end}
}

// openEnded tells whether a range end stands for all keys behind the first.
func openEnded(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// later compares range ends, nil being behind all others.
func later(a, b []byte) bool {
	if a == nil || b == nil {
		return a == nil && b != nil
	}
	return bytes.Compare(a, b) > 0
}

// merge answers the keys that permissions of a type are for, or of type
// READWRITE. What names no keys is left out.
func merge(permissions []*authpb.Permission, typ authpb.Permission_Type) ranges {
	var all ranges
	for _, p := range permissions {
		if p.PermType != typ && p.PermType != authpb.Permission_READWRITE || len(p.Key) == 0 {
			continue
		}
		if r := rangeOf(p.Key, p.RangeEnd); later(r.to, r.from) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b keyRange) int { return bytes.Compare(a.from, b.from) })
	var merged ranges
	for _, r := range all {
		last := len(merged) - 1
		switch {
		case last < 0 || later(r.from, merged[last].to):
			merged = append(merged, r)
		case later(r.to, merged[last].to):
			merged[last].to = r.to
		}
	}
	return merged
}

// reach answers where the range ends that holds a key, if one does.
func (rs ranges) reach(key []byte) (to []byte, ok bool) {
	i := sort.Search(len(rs), func(i int) bool { return bytes.Compare(rs[i].from, key) > 0 })
	if i == 0 || !later(rs[i-1].to, key) {
		return nil, false
	}
	return rs[i-1].to, true
}

// cover tells whether several ranges together hold all keys of a range of
// etcd's. Of one that is empty it takes the first key.
func cover(several []ranges, key, end []byte) bool {
	var want []byte // where to get to; with one key the first step is enough
	if len(end) != 0 && !openEnded(end) {
		want = end
	}
	for {
		var furthest []byte
		found := false
		for _, rs := range several {
			if to, ok := rs.reach(key); ok && (!found || later(to, furthest)) {
				furthest, found = to, true
			}
		}
		switch {
		case !found:
			return false
		case len(end) == 0, furthest == nil, !later(want, furthest):
			return true
		}
		key = furthest
	}
}
