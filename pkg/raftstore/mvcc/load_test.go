package mvcc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

func rowsOf(rows []Row, last error) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
		if last != nil {
			yield(Row{}, last)
		}
	}
}

func parts(rows ...iter.Seq2[Row, error]) []iter.Seq2[Row, error] { return rows }

func storedRow(r row) Row {
	v := r.version()
	return Row{Key: v.RowKey().Append(nil), Value: v.RowValue()}
}

func TestLoadRefuses(t *testing.T) {
	a := storedRow(row{key: "a", create: 2, mod: 2, ver: 1})
	b := storedRow(row{key: "b", create: 3, mod: 3, ver: 1})
	for name, c := range map[string]struct {
		rows []Row
		err  error
		want string
	}{
		"out of order": {[]Row{b, a}, nil, "row 2.0 follows 3.0"},
		"twice":        {[]Row{a, a}, nil, "row 2.0 follows 2.0"},
		"bad key":      {[]Row{a, {Key: []byte("x")}}, nil, "malformed row key 78"},
		"bad value":    {[]Row{a, {Key: b.Key, Value: a.Value}}, nil, "row of revision 3.0 holds mod revision 2"},
		"reader fails": {[]Row{a}, errors.New("broken page"), "read row: broken page"},
	} {
		_, err := Load(Loader{Rows: parts(rowsOf(c.rows, c.err)), CompactScheduled: -1, CompactFinished: -1}, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestLoadOfEtcd loads what only etcd may have written: a compaction that was
// scheduled and not finished, a lease that is gone, a tombstone whose key was
// compacted away, fields in another order.
func TestLoadOfEtcd(t *testing.T) {
	odd := &mvccpb.KeyValue{Key: []byte("o"), CreateRevision: 5, ModRevision: 5, Version: 1, Lease: 9}
	tail, err := proto.Marshal(odd)
	if err != nil {
		t.Fatal(err)
	}
	rows := []Row{
		storedRow(row{key: "a", value: "old", create: 2, mod: 2, ver: 1}),
		storedRow(row{key: "a", value: "new", create: 2, mod: 3, ver: 2, leaseN: 7}),
		storedRow(row{key: "gone", mod: 4, tomb: true}),
		{Key: RowKey{Main: 5}.Append(nil), Value: append([]byte{tagLease, 1}, tail...)},
		storedRow(row{key: "a", value: "newer", create: 2, mod: 6, ver: 3, leaseN: 8}),
	}
	s, err := Load(Loader{
		Index: 9, Term: 2, Rows: parts(rowsOf(rows, nil)), CompactScheduled: 4, CompactFinished: 1,
		Leases: []Lease{{ID: 7, TTL: 1}, {ID: 9, TTL: 60, Remaining: 5}},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `revision 6, compacted 4
{a="newer" c2 m6 v3 l8}
{o="" c5 m5 v1 l9}
lease 7 ttl 2 remaining 0 keys []
lease 9 ttl 60 remaining 5 keys [o]
`
	if got := goldenState(s.Publish()); got != want {
		t.Errorf("loaded\n%s\nwant\n%s", got, want)
	}
	hist, err := historyText(&renderer{}, s.Publish(), 4, 9)
	if want := `[{gone deleted m4} {o="" c5 m5 v1 l9} {a="newer" c2 m6 v3 l8}<-{a="new" c2 m3 v2 l7}]`; err != nil || hist != want {
		t.Errorf("history %s %v\nwant    %s", hist, err, want)
	}
	if dead := fmt.Sprint(s.BeginCheckpoint().Dead()); dead != "[{2 0 false}]" {
		t.Errorf("dead rows %s", dead)
	}
	if _, _, _, err := s.Publish().HashKV(context.Background(), 3); err != ErrCompacted {
		t.Errorf("hash below the compacted revision: %v", err)
	}
}

func TestLoadParts(t *testing.T) {
	a := storedRow(row{key: "a", create: 2, mod: 2, ver: 1})
	b := storedRow(row{key: "b", create: 3, mod: 3, ver: 1})
	one := func(r Row) iter.Seq2[Row, error] { return rowsOf([]Row{r}, nil) }
	none := rowsOf(nil, nil)
	load := func(rows ...iter.Seq2[Row, error]) error {
		_, err := Load(Loader{Rows: rows, CompactScheduled: -1, CompactFinished: -1}, Options{})
		return err
	}
	if err := load(none, one(a), none, one(b)); err != nil {
		t.Error(err)
	}
	if err := load(one(b), one(a)); err == nil || err.Error() != "row 2.0 follows 3.0" {
		t.Errorf("parts out of order: %v", err)
	}
	first := rowsOf(nil, errors.New("first"))
	if err := load(one(a), first, rowsOf(nil, errors.New("second"))); err == nil || err.Error() != "read row: first" {
		t.Errorf("two parts fail: %v", err)
	}
	defer func() {
		if got := recover(); got != "damaged page" {
			t.Errorf("a part panicked, and Load with %v", got)
		}
	}()
	_ = load(one(a), func(func(Row, error) bool) { panic("damaged page") })
}

func TestHashKVCancelled(t *testing.T) {
	v := filled(2*hashCheckEvery, 1).Publish()
	ctx, cancel := context.WithCancel(context.Background())
	if _, _, _, err := v.HashKV(ctx, 0); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, _, _, err := v.HashKV(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("hash of a cancelled call: %v", err)
	}
}

func TestApplyPanicsOnOldIndex(t *testing.T) {
	s := New(Options{})
	s.Apply(Entry{Index: 5})
	defer func() {
		if recover() == nil {
			t.Error("an entry was applied twice")
		}
	}()
	s.Apply(Entry{Index: 5})
}

func TestOptions(t *testing.T) {
	for ttl, ok := range map[int64]bool{-1: false, 1: true, leaseTTLMax: true, leaseTTLMax + 1: false} {
		o := Options{LeaseTTLMin: ttl}
		o.EnsureDefaults()
		if err := o.Validate(); (err == nil) != ok {
			t.Errorf("lease ttl min %d: %v", ttl, err)
		}
	}
}

// TestDeadTombstoneIsWritten: a key whose versions wait in bbolt for their deletion does not come back to life by a crash, though the
// tombstone that ended it was compacted before a checkpoint.
func TestDeadTombstoneIsWritten(t *testing.T) {
	s := New(Options{})
	b := &bucket{rows: map[RowKey][]byte{}, leases: map[LeaseID]Lease{}, scheduled: -1, finished: -1, part: 1}
	index := uint64(0)
	apply := func(r *pb.InternalRaftRequest) {
		index++
		s.Apply(Entry{Index: index, Term: 1, Request: r})
	}
	checkpoint := func() {
		c := s.BeginCheckpoint()
		err := b.write(c)
		s.EndCheckpoint(c, err == nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	put := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k")}}
	apply(put)
	apply(put)
	checkpoint()
	apply(put) // neither this one nor the tombstone was in a checkpoint
	apply(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}})
	apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("other")}})
	apply(&pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(s.Publish().Revision())}})
	for !s.CompactStep(0) {
	}
	for part := range 3 {
		checkpoint()
		got, err := b.load()
		if err != nil {
			t.Fatal(err)
		}
		if v := got.Publish(); v.KeyCount() != 1 || v.Hash() != s.Publish().Hash() {
			t.Errorf("after part %d: %d keys, want 1", part, v.KeyCount())
		}
	}
	if len(b.rows) != 1 || b.finished != b.scheduled {
		t.Errorf("%d rows at the end, compaction scheduled %d and finished %d", len(b.rows), b.scheduled, b.finished)
	}
}
