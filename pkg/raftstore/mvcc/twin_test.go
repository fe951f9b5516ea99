package mvcc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// gen draws commands over a handful of keys, so that they meet often.
type gen struct {
	*rand.Rand
	m *model
}

func (g gen) chance(percent int) bool { return g.IntN(100) < percent }
func (g gen) key() []byte             { return []byte{"abcdefgh"[g.IntN(8)]} }

func (g gen) end() []byte {
	switch g.IntN(6) {
	case 0:
		return []byte{0}
	case 1, 2:
		return g.key()
	}
	return nil
}

// rev draws a revision: mostly one that can be read.
func (g gen) rev() int64 {
	switch g.IntN(5) {
	case 0:
		return g.m.rev + int64(g.IntN(3)) - 1
	case 1:
		return g.m.compacted + int64(g.IntN(4)) - 1
	case 2:
		return 1 + g.Int64N(g.m.rev)
	}
	return 0
}

func (g gen) lease() int64 { return int64(g.IntN(4)) }

func (g gen) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), RangeEnd: g.end(), Revision: g.rev()}
	if g.chance(20) {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	if g.chance(40) {
		r.Limit = int64(g.IntN(5)) - 1
	}
	if g.chance(30) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
	}
	r.KeysOnly, r.CountOnly = g.chance(20), g.chance(15)
	for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.chance(8) {
			*f = 1 + g.Int64N(g.m.rev)
		}
	}
	return r
}

func (g gen) put() *pb.PutRequest {
	p := &pb.PutRequest{Key: g.key(), PrevKv: g.chance(30)}
	if g.chance(10) {
		p.IgnoreValue = true
	} else {
		p.Value = []byte(strings.Repeat(string(rune('a'+g.IntN(26))), g.IntN(200)))
	}
	if g.chance(10) {
		p.IgnoreLease = true
	} else if g.chance(40) {
		p.Lease = g.lease()
	}
	return p
}

func (g gen) del() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.chance(40)}
}

func (g gen) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5))}
	if g.chance(20) {
		c.RangeEnd = g.end()
	}
	var near int64
	if r := g.m.at(string(c.Key), g.m.rev, true); r != nil && g.chance(70) {
		near = []int64{r.ver, r.create, r.mod, 0, r.leaseN}[c.Target]
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: near}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: near}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: near}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte("m")}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: near}
	}
	return c
}

func (g gen) ops(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range g.IntN(4) {
		switch n := g.IntN(10); {
		case n < 4:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}})
		case n < 6:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.del()}})
		case n < 8 || depth == 0:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}})
		default:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth - 1)}})
		}
	}
	return ops
}

func (g gen) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{Success: g.ops(depth), Failure: g.ops(depth)}
	for range g.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	return t
}

func (g gen) request() *pb.InternalRaftRequest {
	switch n := g.IntN(100); {
	case n < 30:
		return &pb.InternalRaftRequest{Put: g.put()}
	case n < 42:
		return &pb.InternalRaftRequest{DeleteRange: g.del()}
	case n < 70:
		for {
			if t := g.txn(2); CheckTxn(t, 16) == nil {
				return &pb.InternalRaftRequest{Txn: t}
			}
		}
	case n < 76:
		return &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: g.rev()}}
	case n < 84:
		return &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 1 + g.lease(), TTL: g.Int64N(100)}}
	case n < 89:
		return &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 1 + g.lease()}}
	case n < 91:
		return &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{
			Checkpoints: []*pb.LeaseCheckpoint{{ID: g.lease(), Remaining_TTL: g.Int64N(50)}}}}
	case n < 93:
		return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: pb.AlarmType(1 + g.IntN(2))}}
	case n < 97:
		return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: 1, Alarm: pb.AlarmType(1 + g.IntN(2))}}
	}
	return &pb.InternalRaftRequest{Range: g.rangeRequest()}
}

// bucket is the file that checkpoints are written to.
type bucket struct {
	rows                map[RowKey][]byte
	leases              map[LeaseID]Lease
	index, term, hash   uint64
	scheduled, finished Revision
	alarms              []*pb.AlarmMember

	part int      // how many dead rows a checkpoint takes; 0: all
	left []RowKey // dead rows

	evicted int // how many rows are loaded without their values
}

func (b *bucket) write(c *Checkpoint) error {
	dead := map[RowKey]bool{}
	for _, k := range c.Dead() {
		dead[k] = true
	}
	last := RowKey{Main: -1}
	for v := range c.Puts() {
		if dead[v.RowKey()] && !v.Tombstone() {
			return fmt.Errorf("checkpoint puts and deletes %v", v.RowKey())
		}
		if !last.less(v.RowKey()) {
			return fmt.Errorf("checkpoint puts %v after %v", v.RowKey(), last)
		}
		last = v.RowKey()
		if last.Main > c.View.Revision() {
			return fmt.Errorf("checkpoint at %d puts %v", c.View.Revision(), last)
		}
		b.rows[last] = slices.Clone(v.RowValue())
	}
	b.left = slices.SortedFunc(slices.Values(append(b.left, c.Dead()...)), RowKey.Compare)
	taken := len(b.left)
	if b.part > 0 {
		taken = min(taken, b.part)
	}
	for _, k := range b.left[:taken] {
		delete(b.rows, k)
	}
	b.left = b.left[taken:]
	for _, l := range c.LeasesPut() {
		b.leases[l.ID] = l
	}
	for _, id := range c.LeasesDeleted() {
		delete(b.leases, id)
	}
	b.index, b.term, b.hash = c.Index, c.Term, c.View.Hash()
	b.scheduled, b.alarms = c.CompactScheduled, c.View.Alarms()
	if len(b.left) == 0 {
		b.finished = c.CompactFinished
	}
	return nil
}

// Begin is that of Rows.
func (b *bucket) Begin() (RowReader, error) { return frozenRows(maps.Clone(b.rows)), nil }

// frozenRows is a RowReader.
type frozenRows map[RowKey][]byte

func (frozenRows) ReadAhead([]RowAhead) {}

func (f frozenRows) AppendRow(dst []byte, k RowKey) ([]byte, error) {
	row, ok := f[k]
	if !ok {
		return dst, ErrRowGone
	}
	return append(dst, row...), nil
}

func (frozenRows) Close() {}

func (b *bucket) keys() []RowKey {
	return slices.SortedFunc(maps.Keys(b.rows), func(x, y RowKey) int {
		if x.less(y) {
			return -1
		}
		return 1
	})
}

func (b *bucket) load() (*State, error) {
	rows := make([]Row, 0, len(b.rows))
	for _, k := range b.keys() {
		rows = append(rows, Row{Key: k.Append(nil), Value: b.rows[k]})
	}
	cut := int(b.index) % (len(rows) + 1)
	return Load(Loader{
		Index: b.index, Term: b.term, Hash: b.hash, CompactScheduled: b.scheduled, CompactFinished: b.finished,
		Rows:     parts(rowsOf(rows[:cut], nil), rowsOf(rows[cut:], nil)),
		RowsHint: len(rows), RowsEvicted: b.evicted,
		Leases: slices.Collect(maps.Values(b.leases)), Alarms: b.alarms,
	}, Options{Rows: b})
}

// oldView is a view with what it must go on answering.
type oldView struct {
	v   *View
	all string
	rev int64
}

// twins runs a State and its model side by side.
type twins struct {
	t    *testing.T
	g    gen
	s    *State
	m    *model
	b    *bucket
	log  []Entry // since the last checkpoint that was finished
	old  []oldView
	open *Checkpoint
	cut  int    // entries of log that the open checkpoint covers
	room Room   // in memory
	left uint64 // versions that were evicted
}

// now renders what the state of now holds.
func (w *twins) now() *renderer { return &renderer{rows: frozenRows(w.b.rows)} }

func TestTwin(t *testing.T) {
	var left uint64
	defer func() {
		if left < 1000 {
			t.Errorf("only %d versions have left memory", left)
		}
	}()
	for i := range 60 {
		seed := uint64(i + 1)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			m := newModel()
			w := &twins{
				t: t, g: gen{rand.New(rand.NewPCG(seed, 7)), m}, m: m,
				b: &bucket{rows: map[RowKey][]byte{}, leases: map[LeaseID]Lease{}, scheduled: -1, finished: -1, part: int(seed % 4)},
			}
			if w.s = New(Options{Rows: w.b}); seed%3 > 0 { // with the others, everything stays in memory
				w.room = Room{Live: 1 + int64(seed)*20, History: 1 + int64(seed)*10}
			}
			for range 250 {
				w.step()
				if t.Failed() {
					return
				}
			}
			left += w.left
		})
	}
}

func (w *twins) step() {
	req := w.g.request()
	e := Entry{Index: w.s.Index() + 1, Term: 1, Request: req}
	want, got := w.m.apply(e), w.now().result(w.s.Apply(e))
	if want != got {
		w.t.Fatalf("%v:\nwant %s\ngot  %s", req, want, got)
	}
	w.log = append(w.log, e)
	if w.g.chance(50) {
		w.s.CompactStep(1 + w.g.IntN(6))
	}
	w.evict()
	v := w.s.Publish()
	w.checkView(v)
	if w.g.chance(20) {
		w.old = append(w.old, w.remember(v))
	}
	if w.g.chance(20) {
		w.checkOld()
	}
	if w.g.chance(15) {
		w.checkpoint()
	}
	if w.g.chance(10) {
		w.reload()
	}
}

// evict lets some versions leave memory, and looks at the sums.
func (w *twins) evict() {
	before := w.s.Residency().Evictions
	defer func() { w.left += w.s.Residency().Evictions - before }()
	for range w.g.IntN(8) {
		if w.s.EvictStep(w.room, 1+w.g.IntN(6)) != EvictionMore {
			break
		}
	}
	checkResidency(w.t, w.s)
}

// checkResidency compares the sums with what is there. What a removal under way
// has not come to still counts.
func checkResidency(t *testing.T, s *State) {
	t.Helper()
	var want Residency
	count := func(v *Version, in, out *int64) {
		switch {
		case v == nil || !v.evictable():
		case v.Encoding().Resident():
			*in += int64(v.size)
		default:
			*out += int64(v.size)
		}
	}
	s.keys.AscendFirst(func(v *Version) bool {
		count(v, &want.Live, &want.LiveEvicted)
		for p := v.Prev(); p != nil; p = p.Prev() {
			if p.flags&flagDead == 0 {
				count(p, &want.History, &want.HistoryEvicted)
			}
		}
		return true
	})
	got := s.Residency()
	want.Evictions, want.EvictedBytes = got.Evictions, got.EvictedBytes
	if got != want {
		t.Fatalf("residency %+v, want %+v", got, want)
	}
}

func (w *twins) checkView(v *View) {
	for range 3 {
		r := w.g.rangeRequest()
		want, werr := w.m.rangeKeys(r, w.m.rev)
		got, err := v.Range(r)
		if werr != err || err == nil && want != w.now().ranged(got) {
			w.t.Fatalf("%v:\nwant %s %v\ngot  %v %v", r, want, werr, got, err)
		}
		w.checkPages(v, r)
	}
	if t := w.g.txn(0); IsReadOnlyTxn(t) {
		p := w.m.plan(t)
		werr := w.m.checkPlan(p)
		got, err := v.Txn(t)
		if werr != err || err == nil && w.m.run(p) != w.now().txn(got) {
			w.t.Fatalf("%v: %v %v", t, got, err)
		}
	}
	for id := int64(1); id < 6; id++ {
		if want, got := fmt.Sprint(w.m.leaseKeys(id)), fmt.Sprintf("%s", v.LeaseKeys(LeaseID(id))); want != got {
			w.t.Fatalf("keys of lease %d: want %s, got %s", id, want, got)
		}
		l, _ := v.Lease(LeaseID(id))
		if want := w.m.leases[id]; l != want {
			w.t.Fatalf("lease %d: want %v, got %v", id, want, l)
		}
	}
	w.checkHash(v)
	w.checkHistory(v)
	if n := len(w.m.live([]byte{0}, []byte{0}, w.m.rev)); v.KeyCount() != int64(n) {
		w.t.Fatalf("key count %d, want %d", v.KeyCount(), n)
	}
}

// checkPages compares a streamed range with the same in one piece.
func (w *twins) checkPages(v *View, r *pb.RangeRequest) {
	if !DefaultOrder(r) || RevisionFilters(r) {
		return
	}
	whole, werr := v.Range(r)
	joined := RangeResult{KeysOnly: r.KeysOnly, KeysLease: r.SortTarget == pb.RangeRequest_VALUE}
	for p, err := range v.Pages(r, 1+w.g.IntN(500)) {
		if err != nil {
			if err != werr {
				w.t.Fatalf("pages of %v: %v, want %v", r, err, werr)
			}
			return
		}
		joined.Versions = append(joined.Versions, p.Versions...)
		if !p.Last && (p.Count != 0 || p.More || p.Revision != 0) {
			w.t.Fatalf("pages of %v: a page before the last with a summary", r)
		}
		if p.Last {
			joined.Count, joined.More, joined.Revision = p.Count, p.More, p.Revision
		}
	}
	if r.SortTarget != pb.RangeRequest_KEY {
		return // each page is sorted by itself
	}
	if got, want := w.now().ranged(&joined), w.now().ranged(whole); werr != nil || got != want {
		w.t.Fatalf("pages of %v:\nwant %s %v\ngot  %s", r, want, werr, got)
	}
}

func (w *twins) checkHash(v *View) {
	rev := w.g.rev()
	h, compacted, hashed, err := v.HashKV(context.Background(), Revision(rev))
	switch {
	case rev > 0 && rev < w.m.compacted:
		if err != ErrCompacted {
			w.t.Fatalf("hash at %d: %v", rev, err)
		}
		return
	case rev > w.m.rev:
		if err != ErrFutureRev {
			w.t.Fatalf("hash at %d: %v", rev, err)
		}
		return
	}
	if rev == 0 {
		rev = w.m.rev
	}
	if want := w.m.hashKV(rev); err != nil || h != want || int64(compacted) != w.m.compacted || int64(hashed) != rev {
		w.t.Fatalf("hash at %d: %x (compacted %d, at %d) %v, want %x (compacted %d)", rev, h, compacted, hashed, err, want, w.m.compacted)
	}
}

func (w *twins) checkHistory(v *View) {
	from := max(w.m.compacted, 1) + w.g.Int64N(w.m.rev-max(w.m.compacted, 1)+1)
	to := from + w.g.Int64N(w.m.rev+2-from+1)
	want := []string{}
	for _, r := range w.m.stored() {
		if r.mod < from || r.mod >= to {
			continue
		}
		s := r.String()
		if p := w.m.at(r.key, r.mod-1, true); p != nil && (r.tomb || r.create != r.mod) && r.mod > w.m.compacted {
			s += "<-" + p.String()
		}
		want = append(want, s)
	}
	got, err := historyText(w.now(), v, from, to)
	if fmt.Sprint(want) != got || err != nil {
		w.t.Fatalf("history [%d, %d):\nwant %s\ngot  %s %v", from, to, want, got, err)
	}
	if _, err := historyText(w.now(), v, w.m.compacted-1, to); err != ErrCompacted {
		w.t.Fatalf("history from below the compacted revision: %v", err)
	}
}

func historyText(x *renderer, v *View, from, to int64) (string, error) {
	got := []string{}
	err := v.History(Revision(from), Revision(to), func(e Event) bool {
		s := x.version(e.Version)
		if e.Prev != nil {
			s += "<-" + x.version(e.Prev)
		}
		got = append(got, s)
		return true
	})
	return fmt.Sprint(got), err
}

// everything is all that a view shows. It is false if the view was overtaken by
// a compaction, and has to be read again on a newer one.
func everything(v *View) (string, bool) {
	r, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return err.Error(), true
	}
	x := &renderer{}
	for _, found := range r.Versions {
		if found.Encoding().Resident() {
			continue
		}
		if x.rows, err = v.Rows(0); errors.Is(err, ErrOvertaken) {
			return "", false
		}
	}
	return x.ranged(r) + fmt.Sprint(v.Leases(), v.Alarms(), v.Hash(), v.Index(), v.Compacted()), true
}

func (w *twins) remember(v *View) oldView {
	all, ok := everything(v)
	if !ok {
		w.t.Fatalf("the view of now, at %d, was overtaken", w.m.rev)
	}
	return oldView{v: v, all: all, rev: w.m.rev}
}

// checkOld checks that views of the past answer what they answered, at their
// own revision always and at older ones while those are not compacted.
func (w *twins) checkOld() {
	for _, o := range w.old {
		if got, ok := everything(o.v); !ok && w.m.compacted <= o.rev || ok && got != o.all {
			w.t.Fatalf("view at %d:\nwas %s\nis  %s", o.rev, o.all, got)
		}
		if o.rev < 2 {
			continue
		}
		rev := 1 + w.g.Int64N(o.rev)
		r := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}
		got, err := o.v.Range(r)
		rows := &LazyReader{Begin: w.b.Begin}
		x := &renderer{rows: rows}
		if rev != o.rev && rev < w.m.compacted {
			if err != ErrCompacted {
				w.t.Fatalf("view at %d read at %d, compacted at %d: %v", o.rev, rev, w.m.compacted, err)
			}
			continue
		}
		if err != nil {
			w.t.Fatalf("view at %d read at %d: %v", o.rev, rev, err)
		}
		if rev < w.m.compacted {
			continue
		}
		want, _ := w.m.rangeKeys(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}, w.m.rev)
		got.Revision = Revision(w.m.rev)
		if have := x.ranged(got); want != have {
			w.t.Fatalf("view at %d read at %d:\nwant %s\ngot  %s", o.rev, rev, want, have)
		}
	}
}

// checkpoint begins a checkpoint or ends the one that is open.
func (w *twins) checkpoint() {
	if w.open == nil {
		w.open, w.cut = w.s.BeginCheckpoint(), len(w.log)
		return
	}
	c, ok := w.open, w.g.chance(70)
	w.open = nil
	if ok {
		if err := w.b.write(c); err != nil {
			w.t.Fatal(err)
		}
		w.log = w.log[w.cut:]
	}
	w.s.EndCheckpoint(c, ok)
}

// reload compares the state with one that is loaded from the last checkpoint
// and given the rest of the log; sometimes it goes on with that one (I3).
func (w *twins) reload() {
	if w.b.evicted = 0; w.room.Live > 0 {
		w.b.evicted = w.g.IntN(len(w.b.rows) + 1)
	}
	s, err := w.b.load()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range w.log {
		// What is replayed was encoded and decoded in between.
		raw, err := proto.Marshal(e.Request)
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Request, err = Decode(raw); err != nil {
			w.t.Fatal(err)
		}
		s.Apply(e)
		s.CompactStep(w.g.IntN(4) + 1)
	}
	checkResidency(w.t, s)
	want, ok := everything(w.s.Publish())
	if got, gotOK := everything(s.Publish()); want != got || !ok || !gotOK {
		w.t.Fatalf("replayed from index %d:\nwant %s\ngot  %s", w.b.index, want, got)
	}
	for !s.CompactStep(100) {
	}
	for !w.s.CompactStep(100) {
	}
	w.checkStored(s)
	w.checkStored(w.s)
	w.checkView(s.Publish())
	if w.g.chance(50) {
		w.s, w.open, w.old = s, nil, nil
	}
}

// checkStored checks what is left when compaction is through, and that a
// checkpoint of it holds exactly that.
func (w *twins) checkStored(s *State) {
	var size, live int64
	want := []RowKey{}
	for _, r := range w.m.stored() {
		size += r.version().RowSize()
		want = append(want, r.version().RowKey())
	}
	for _, r := range w.m.live([]byte{0}, []byte{0}, w.m.rev) {
		live += r.version().RowSize()
	}
	if s.size != size || s.liveSize != live {
		w.t.Fatalf("size %d of which %d live, want %d and %d", s.size, s.liveSize, size, live)
	}
	for _, check := range []func() error{s.keys.Check, s.leases.Check, s.attached.Check} {
		if err := check(); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.open != nil {
		return
	}
	b := &bucket{rows: maps.Clone(w.b.rows), leases: maps.Clone(w.b.leases), left: slices.Clone(w.b.left)}
	c := s.BeginCheckpoint()
	if err := b.write(c); err != nil {
		w.t.Fatal(err)
	}
	s.EndCheckpoint(c, false)
	if got := b.keys(); !slices.Equal(got, want) {
		w.t.Fatalf("checkpoint holds %v, want %v", got, want)
	}
	if b.finished != b.scheduled || int64(b.finished) != w.m.compacted {
		w.t.Fatalf("checkpoint finished %d of %d, want %d", b.finished, b.scheduled, w.m.compacted)
	}
}
