package mvcc

import (
	"bytes"
	"iter"
	"math"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// RangeResult answers a range.
type RangeResult struct {
	Versions []*Version
	// Count is the number of keys of the range at the revision asked for,
	// whatever limit and filters say.
	Count int64
	// More tells that the limit has cut the result.
	More bool
	// KeysOnly asks for Version.KeyOnlyKV(KeysLease) instead of KV.
	KeysOnly  bool
	KeysLease bool
	// Revision is the current revision, also when an older one was read.
	Revision Revision
}

// reader reads keys at a current revision.
type reader struct {
	keys      *keyTree
	revision  Revision
	compacted Revision
	latest    *latest
}

// span is a set of keys: one, all from one on, or those of [key, end).
type span struct {
	key, end []byte
	kind     spanKind
}

type spanKind uint8

const (
	spanOne spanKind = iota
	spanFrom
	spanRange
	spanNone
)

// spanOf reads a key and a range end as etcd's requests mean them: no end is
// the one key, "\0" is no end, an end at or below the key is nothing.
func spanOf(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{key: key, kind: spanOne}
	case len(end) == 1 && end[0] == 0:
		return span{key: key, kind: spanFrom}
	case bytes.Compare(key, end) >= 0:
		return span{kind: spanNone}
	}
	return span{key: key, end: end, kind: spanRange}
}

// Range answers a range with all options of etcd's. The checks of CheckRange
// are the caller's. Errors: ErrFutureRev, ErrCompacted; and if it sorts by values
// that have left memory, ErrOvertaken and *ReadError.
func (v *View) Range(r *pb.RangeRequest) (*RangeResult, error) {
	switch {
	case r.Revision > 0:
	case r.CountOnly:
		return &RangeResult{Revision: v.revision, Count: v.countLive(spanOf(r.Key, r.RangeEnd))}, nil
	case len(r.RangeEnd) == 0 && !RevisionFilters(r):
		return v.get(r), nil
	}
	if v.overtaken(v.readRevision(r.Revision)) {
		return nil, ErrCompacted
	}
	res, err := v.rangeKeys(r)
	if err == nil && v.overtaken(v.readRevision(r.Revision)) {
		return nil, ErrCompacted
	}
	return res, v.rowError(Revision(r.Revision), err)
}

// get answers a range of one key at the view's own revision: one search, one
// allocation, and a few hundred bytes of stack less than a range of many, which
// keeps a call on the stack it begins with.
func (v *View) get(r *pb.RangeRequest) *RangeResult {
	found := &struct {
		RangeResult
		one [1]*Version
	}{RangeResult: RangeResult{
		Revision: v.revision, KeysOnly: r.KeysOnly, KeysLease: r.SortTarget == pb.RangeRequest_VALUE,
	}}
	res := &found.RangeResult
	if x := v.Get(r.Key); x != nil {
		if x.cold.Load() != 0 {
			x.cold.Store(0)
		}
		found.one[0] = x
		res.Versions, res.Count = found.one[:], 1
	}
	return res
}

// readRevision is the revision that a request with this one reads at.
func (r reader) readRevision(rev int64) Revision {
	if rev <= 0 {
		return r.revision
	}
	return Revision(rev)
}

// checkRevision is etcd's check of a range in a txn. A negative revision is
// the current one, but not once something was compacted.
func (r reader) checkRevision(rev int64) error {
	switch {
	case rev == 0:
		return nil
	case Revision(rev) > r.revision:
		return ErrFutureRev
	case Revision(rev) < r.compacted:
		return ErrCompacted
	}
	return nil
}

func (r reader) rangeKeys(req *pb.RangeRequest) (*RangeResult, error) {
	if Revision(req.Revision) > r.revision {
		return nil, ErrFutureRev
	}
	rev := r.readRevision(req.Revision)
	if rev < r.compacted {
		return nil, ErrCompacted
	}
	sp := spanOf(req.Key, req.RangeEnd)
	res := &RangeResult{Revision: r.revision}
	if req.CountOnly {
		res.Count = r.count(sp, rev)
		return res, nil
	}
	res.KeysOnly = req.KeysOnly
	res.KeysLease = req.SortTarget == pb.RangeRequest_VALUE
	res.Versions, res.Count = r.fetch(sp, rev, pushedLimit(req))
	filter(res, req)
	if err := r.sortVersions(res.Versions, req); err != nil {
		return nil, err
	}
	if req.Limit > 0 && int64(len(res.Versions)) > req.Limit {
		res.Versions = res.Versions[:req.Limit]
		res.More = true
	}
	return res, nil
}

// pushedLimit is how many versions are worth fetching: one more than the
// limit, or all if they are filtered or sorted before they are cut. 0 is all.
func pushedLimit(r *pb.RangeRequest) int64 {
	if r.Limit <= 0 || !DefaultOrder(r) || RevisionFilters(r) {
		return 0
	}
	if r.Limit == math.MaxInt64 {
		return r.Limit
	}
	return r.Limit + 1
}

// DefaultOrder tells whether a range asks for no sorting but that by key.
func DefaultOrder(r *pb.RangeRequest) bool {
	return r.SortOrder == pb.RangeRequest_NONE ||
		r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
}

// RevisionFilters tells whether a range filters by revision.
func RevisionFilters(r *pb.RangeRequest) bool {
	return r.MinModRevision != 0 || r.MaxModRevision != 0 ||
		r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
}

// count answers the number of keys of the span that are live at the revision:
// O(log n) at the current one, otherwise a walk.
func (r reader) count(sp span, rev Revision) int64 {
	if rev >= r.revision {
		return r.countLive(sp)
	}
	n := int64(0)
	r.visit(sp, func(v *Version) bool {
		if v.at(rev) != nil {
			n++
		}
		return true
	})
	return n
}

func (r reader) countLive(sp span) int64 {
	switch sp.kind {
	case spanOne:
		if v, ok := r.keys.Get(sp.key); ok {
			return int64(v.weight())
		}
		return 0
	case spanFrom:
		return int64(r.keys.Weight() - r.keys.WeightBefore(sp.key))
	case spanRange:
		return int64(r.keys.WeightBefore(sp.end) - r.keys.WeightBefore(sp.key))
	}
	return 0
}

// fetch answers up to limit versions (0: all) of the span that are visible at
// the revision, by key, and the number of all of them.
func (r reader) fetch(sp span, rev Revision, limit int64) ([]*Version, int64) {
	if rev >= r.revision {
		return r.live(sp, limit), r.countLive(sp)
	}
	var found []*Version
	count := int64(0)
	r.visit(sp, func(v *Version) bool {
		if v = v.at(rev); v == nil {
			return true
		}
		count++
		if limit == 0 || count <= limit {
			found = append(found, v)
		}
		return true
	})
	return found, count
}

// live answers up to limit versions (0: all) of the span's live keys.
func (r reader) live(sp span, limit int64) []*Version {
	n := r.countLive(sp)
	if limit > 0 {
		n = min(n, limit)
	}
	if n == 0 {
		return nil
	}
	found := make([]*Version, 0, n)
	r.visitLive(sp, func(v *Version) bool {
		found = append(found, v)
		return int64(len(found)) < n
	})
	return found
}

// visitLive calls fn for the live keys of the span in order.
func (r reader) visitLive(sp span, fn func(*Version) bool) {
	switch sp.kind {
	case spanOne:
		if v, ok := r.keys.Get(sp.key); ok && !v.Tombstone() {
			fn(v)
		}
	case spanFrom:
		r.keys.AscendWeighted(sp.key, fn)
	case spanRange:
		r.keys.AscendWeightedRange(sp.key, sp.end, fn)
	}
}

// visit calls fn for the newest version, tombstones too, of the keys of the
// span in order.
func (r reader) visit(sp span, fn func(*Version) bool) {
	switch sp.kind {
	case spanOne:
		if v, ok := r.keys.Get(sp.key); ok {
			fn(v)
		}
	case spanFrom:
		r.keys.Ascend(sp.key, fn)
	case spanRange:
		r.keys.AscendRange(sp.key, sp.end, fn)
	}
}

func filter(res *RangeResult, r *pb.RangeRequest) {
	if !RevisionFilters(r) {
		return
	}
	kept := res.Versions[:0]
	for _, v := range res.Versions {
		mod, create := int64(v.mod), int64(v.create)
		switch {
		case r.MaxModRevision != 0 && mod > r.MaxModRevision,
			r.MinModRevision != 0 && mod < r.MinModRevision,
			r.MaxCreateRevision != 0 && create > r.MaxCreateRevision,
			r.MinCreateRevision != 0 && create < r.MinCreateRevision:
		default:
			kept = append(kept, v)
		}
	}
	res.Versions = kept
}

// sortVersions sorts as etcd does, with the same algorithm: equal keys then
// come in the same order.
func (r reader) sortVersions(vs []*Version, req *pb.RangeRequest) error {
	order := req.SortOrder
	if req.SortTarget != pb.RangeRequest_KEY && order == pb.RangeRequest_NONE {
		order = pb.RangeRequest_ASCEND
	}
	if order == pb.RangeRequest_NONE || req.SortTarget == pb.RangeRequest_KEY && order == pb.RangeRequest_ASCEND {
		return nil
	}
	by := versionSort{vs: vs}
	switch req.SortTarget {
	case pb.RangeRequest_KEY:
		by.less = func(a, b *Version) bool { return bytes.Compare(a.Key(), b.Key()) < 0 }
	case pb.RangeRequest_VERSION:
		by.less = func(a, b *Version) bool { return a.num < b.num }
	case pb.RangeRequest_CREATE:
		by.less = func(a, b *Version) bool { return a.create < b.create }
	case pb.RangeRequest_MOD:
		by.less = func(a, b *Version) bool { return a.mod < b.mod }
	case pb.RangeRequest_VALUE:
		values, err := r.values(vs)
		if err != nil {
			return err
		}
		by.less = func(a, b *Version) bool { return bytes.Compare(values[a], values[b]) < 0 }
	default:
		return nil // refused by CheckRange
	}
	switch order {
	case pb.RangeRequest_ASCEND:
		sort.Sort(by)
	case pb.RangeRequest_DESCEND:
		sort.Sort(sort.Reverse(by))
	}
	return nil
}

// values answers the values of versions, all of them in memory.
func (r reader) values(vs []*Version) (map[*Version][]byte, error) {
	rows := &LazyReader{Begin: r.latest.begin}
	defer rows.Close()
	values := make(map[*Version][]byte, len(vs))
	for _, v := range vs {
		value, err := v.value(rows)
		if err != nil {
			return nil, err
		}
		values[v] = value
	}
	return values, nil
}

// value is the value, read from the rows if it has left memory.
func (v *Version) value(rows RowReader) ([]byte, error) {
	e := v.Encoding()
	if kv := e.Bytes(); kv != nil {
		return v.valueOf(kv), nil
	}
	kv, err := e.Append(nil, rows)
	if err != nil {
		return nil, err
	}
	return v.valueOf(kv), nil
}

// value is the value of one version.
func (r reader) value(v *Version) ([]byte, error) {
	rows := &LazyReader{Begin: r.latest.begin}
	defer rows.Close()
	return v.value(rows)
}

type versionSort struct {
	vs   []*Version
	less func(a, b *Version) bool
}

func (s versionSort) Len() int           { return len(s.vs) }
func (s versionSort) Less(i, j int) bool { return s.less(s.vs[i], s.vs[j]) }
func (s versionSort) Swap(i, j int)      { s.vs[i], s.vs[j] = s.vs[j], s.vs[i] }

// Page is one chunk of a streamed range. Count, More and Revision are those of
// the whole range and only set on the last one.
type Page struct {
	RangeResult
	Last bool
}

// Pages answers a range in chunks, as etcd's RangeStream cuts them: 10 keys
// first, then twice or half as many until a chunk has about targetBytes. All
// are read at one revision. There is at least one page unless there is an
// error, which ends the sequence.
func (v *View) Pages(r *pb.RangeRequest, targetBytes int) iter.Seq2[*Page, error] {
	return func(yield func(*Page, error) bool) {
		if r.CountOnly {
			res, err := v.Range(r)
			if err != nil {
				yield(nil, err)
				return
			}
			yield(&Page{RangeResult: *res, Last: true}, nil)
			return
		}
		v.pages(r, targetBytes, yield)
	}
}

func (v *View) pages(r *pb.RangeRequest, targetBytes int, yield func(*Page, error) bool) {
	total := r.Limit
	if total == 0 {
		total = math.MaxInt64
	}
	q := &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Revision: r.Revision, KeysOnly: r.KeysOnly,
		SortOrder: r.SortOrder, SortTarget: r.SortTarget, Limit: min(pageKeysFirst, total),
	}
	if q.Revision == 0 {
		q.Revision = int64(v.revision)
	}
	sent := int64(0)
	for {
		res, err := v.Range(q)
		if err != nil {
			yield(nil, err)
			return
		}
		sent += int64(len(res.Versions))
		page := &Page{RangeResult: *res, Last: !res.More || sent == total}
		// What is left after this page; every page counts to the end.
		left := res.Count - int64(len(res.Versions))
		page.Count = 0
		if page.Last {
			page.Count = sent + left
		} else {
			page.More, page.Revision = false, 0
		}
		if !yield(page, nil) || page.Last {
			return
		}
		last := res.Versions[len(res.Versions)-1].Key()
		q.Key = append(append(make([]byte, 0, len(last)+1), last...), 0)
		q.Limit = min(adjustPage(q.Limit, responseSize(res), targetBytes), total-sent)
	}
}

// adjustPage picks the number of keys of the next page.
func adjustPage(limit int64, size, target int) int64 {
	switch {
	case size < target/2:
		limit *= 2
	case size > target*2:
		limit /= 2
	}
	return max(limit, 1)
}

// responseSize is the size of the RangeResponse that etcd would measure.
func responseSize(res *RangeResult) int {
	n := 2 + intFieldLen(int64(res.Revision))
	for _, v := range res.Versions {
		kv := v.Size()
		if res.KeysOnly {
			kv = int(v.metaEnd())
		}
		n += 1 + uvarintLen(uint64(kv)) + kv
	}
	count := int64(len(res.Versions))
	if res.More {
		n += 2
		count++ // etcd has looked at one key more
	}
	return n + intFieldLen(count)
}
