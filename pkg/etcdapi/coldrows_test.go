package etcdapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

const (
	coldKeys  = 600
	coldLimit = 32 << 20
)

// coldServer holds coldKeys keys of 8 KiB in two versions each, nearly all of them in the database only, and answers the last of
// them as they were put.
func coldServer(t *testing.T) (*testServer, []*mvccpb.KeyValue) {
	ts := startServer(t, Options{}, func(c *raftstore.Config) {
		c.Memory.Limit, c.Memory.HistoryBytes = coldLimit, 64<<10
	})
	ctx := within(t)
	var want []*mvccpb.KeyValue
	for round := range 2 {
		for i := range coldKeys {
			key := fmt.Sprintf("k%04d", i)
			value := bytes.Repeat([]byte{byte('a' + i%26), byte('0' + round)}, 4<<10)
			if _, err := ts.cli.Put(ctx, key, string(value)); err != nil {
				t.Fatal(err)
			}
			if round == 1 {
				want = append(want, &mvccpb.KeyValue{Key: []byte(key), Value: value, Version: 2,
					CreateRevision: int64(2 + i), ModRevision: int64(2 + coldKeys + i)})
			}
		}
	}
	ts.chill(t)
	return ts, want
}

// chill lets as much leave memory as the limit wants of a heap that is much too large.
func (ts *testServer) chill(t *testing.T) {
	t.Helper()
	const room = coldLimit / 16
	ts.store.FitMemory(1<<40, 0)
	for {
		if err := ts.store.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		if r := ts.store.View().Residency(); r.Live <= room && r.History <= room {
			return
		}
		runtime.Gosched()
	}
}

func wantKVs(t *testing.T, what string, got, want []*mvccpb.KeyValue) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d keys, want %d", what, len(got), len(want))
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Fatalf("%s: %d is %.100v, want %.100v", what, i, got[i], want[i])
		}
	}
}

func TestColdReads(t *testing.T) {
	ts, want := coldServer(t)
	ctx := within(t)
	kv := pb.NewKVClient(ts.conn(t))
	all := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}

	wantKVs(t, "whole list", mustOf[*pb.RangeResponse](t)(kv.Range(ctx, all)).Kvs, want)
	for i := 0; i < coldKeys; i += 97 {
		wantKVs(t, "get", mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: want[i].Key})).Kvs, want[i:i+1])
	}
	past := mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 1 + coldKeys})).Kvs
	if len(past) != coldKeys || past[7].Version != 1 || past[7].Value[1] != '0' {
		t.Errorf("list of the past: %d keys, one is %.100v", len(past), past[7])
	}
	txn := mustOf[*pb.TxnResponse](t)(kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: want[5].Key, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: want[5].Value}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: want[5].Key}}}},
	}))
	wantKVs(t, "txn", txn.Responses[0].GetResponseRange().Kvs, want[5:6])
	sorted := mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k00"), RangeEnd: []byte("k01"), SortTarget: pb.RangeRequest_VALUE}))
	if len(sorted.Kvs) != 100 || sorted.Kvs[0].Value[0] != 'a' || sorted.Kvs[99].Value[0] != 'z' {
		t.Errorf("sorted by value: %d keys", len(sorted.Kvs))
	}
	stream, err := kv.RangeStream(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	var streamed []*mvccpb.KeyValue
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		streamed = append(streamed, m.RangeResponse.Kvs...)
	}
	wantKVs(t, "stream", streamed, want)
	put := mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: want[0].Key, Value: []byte("new"), PrevKv: true}))
	wantKVs(t, "previous of a put", []*mvccpb.KeyValue{put.PrevKv}, want[:1])
	del := mustOf[*pb.DeleteRangeResponse](t)(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: want[1].Key, RangeEnd: []byte("l"), PrevKv: true}))
	wantKVs(t, "previous of a delete", del.PrevKvs, want[1:])
}

func TestColdWatch(t *testing.T) {
	ts, want := coldServer(t)
	ctx := within(t)
	// From history, which has left memory.
	events := 0
	for r := range ts.cli.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithPrevKV()) {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Events {
			if i := events - coldKeys; i >= 0 {
				wantKVs(t, "event", []*mvccpb.KeyValue{(*mvccpb.KeyValue)(e.Kv)}, want[i:i+1])
				if e.PrevKv == nil || e.PrevKv.Version != 1 || e.PrevKv.Value[0] != want[i].Value[0] {
					t.Fatalf("previous of %s is %.100v", e.Kv.Key, e.PrevKv)
				}
			}
			events++
		}
		if events == 2*coldKeys {
			break
		}
	}
	// From the window, with a previous version that has left memory.
	live := ts.cli.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	<-live
	for i := range 20 {
		if _, err := ts.cli.Delete(ctx, string(want[i].Key)); err != nil {
			t.Fatal(err)
		}
	}
	for seen := 0; seen < 20; {
		r := <-live
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Events {
			wantKVs(t, "previous of a deletion", []*mvccpb.KeyValue{e.PrevKv}, want[seen:seen+1])
			seen++
		}
	}
}

// TestColdReadOvertaken: what a compaction has removed under a View is read from a newer one.
func TestColdReadOvertaken(t *testing.T) {
	ts, _ := coldServer(t)
	ctx := within(t)
	old := ts.store.View()
	if _, err := ts.cli.Put(ctx, "k0000", "new"); err != nil {
		t.Fatal(err)
	}
	if _, err := ts.cli.Compact(ctx, int64(ts.store.View().Revision()), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Rows(0); !errors.Is(err, mvcc.ErrOvertaken) {
		t.Errorf("rows of a view that was overtaken: %v", err)
	}
	r, err := ts.cli.Get(ctx, "k", clientv3.WithPrefix())
	if err != nil || len(r.Kvs) != coldKeys || string(r.Kvs[0].Value) != "new" {
		t.Errorf("%d keys, %v", len(r.Kvs), err)
	}
}

// TestColdListBreaksOff: a list whose rows cannot be read any more when they are to be sent ends with its connection.
func TestColdListBreaksOff(t *testing.T) {
	ts, _ := coldServer(t)
	res, err := ts.store.View().Range(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ts.store.View().Rows(0)
	if err != nil {
		t.Fatal(err)
	}
	cold := newColdRows(context.Background(), noRows{}, rows)
	dropped := false
	cold.drop = func() { dropped = true }
	r := encoded(t)(encodeRange(wireHeader{}, res, cold))
	cold.free()
	buf := r.bufs.Materialize()
	if want := encoded(t)(answerWith(context.Background(), newColdRows(context.Background(), ts.store.Rows(), begin(t, ts)), func(c *coldRows) (*reply, error) {
		return encodeRange(wireHeader{}, res, c)
	})).bufs.Materialize(); dropped || !bytes.Equal(buf, want) {
		t.Fatalf("%d bytes, want %d", len(buf), len(want))
	}
	cold = newColdRows(context.Background(), noRows{}, begin(t, ts))
	cold.drop = func() { dropped = true }
	r = encoded(t)(encodeRange(wireHeader{}, res, cold))
	cold.free()
	cold.closeReader() // its time is over
	if n := len(r.bufs.Materialize()); !dropped || n != len(buf) {
		t.Errorf("dropped %v, %d bytes", dropped, n)
	}
	r.bufs.Free()
	if n := cold.refs.Load(); n != 0 {
		t.Errorf("%d references are left", n)
	}
}

func begin(t *testing.T, ts *testServer) mvcc.RowReader {
	t.Helper()
	r, err := ts.store.Rows().Begin()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noRows have nothing.
type noRows struct{}

func (noRows) Begin() (mvcc.RowReader, error) { return nil, errors.New("the disk is gone") }

// TestColdReadsBesideEvictions: gets, lists, streams and writes while values leave memory, come back with a write and leave again.
func TestColdReadsBesideEvictions(t *testing.T) {
	ts, _ := coldServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	whole := func(v []byte) bool { // of two bytes, over and over
		return len(v) == 8<<10 && bytes.Equal(v, bytes.Repeat(v[:2], 4<<10))
	}
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				opts, want := []clientv3.OpOption{clientv3.WithPrefix()}, coldKeys
				key := "k"
				if r > 0 {
					key, opts, want = fmt.Sprintf("k%04d", n*7%coldKeys), nil, 1
				}
				got, err := ts.cli.Get(ctx, key, opts...)
				if ctx.Err() != nil {
					return
				}
				if err != nil || len(got.Kvs) != want {
					t.Errorf("get %s: %v", key, err)
					return
				}
				for _, kv := range got.Kvs {
					if !whole(kv.Value) {
						t.Errorf("%s has %d bytes", kv.Key, len(kv.Value))
						return
					}
				}
			}
		})
	}
	before := ts.store.View().Residency().Evictions
	for round := range 2 {
		for i := range coldKeys {
			value := bytes.Repeat([]byte{byte('A' + i%26), byte('0' + round)}, 4<<10)
			if _, err := ts.cli.Put(ctx, fmt.Sprintf("k%04d", i), string(value)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ts.cli.Compact(ctx, int64(ts.store.View().Revision())-coldKeys/2); err != nil {
			t.Fatal(err)
		}
		ts.chill(t)
	}
	cancel()
	readers.Wait()
	if n := ts.store.View().Residency().Evictions - before; n < coldKeys {
		t.Errorf("%d versions left meanwhile", n)
	}
}

// TestColdListReadsAhead: each row of a list that has left memory was told to the disk before it is read, once, and no more than so many
// bytes before. What was read is let go of.
func TestColdListReadsAhead(t *testing.T) {
	ts, want := coldServer(t)
	res, err := ts.store.View().Range(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		t.Fatal(err)
	}
	rows := &toldRows{t: t, RowReader: begin(t, ts), told: make(map[mvcc.RowKey]int)}
	cold := newColdRows(context.Background(), noRows{}, rows)
	r := encoded(t)(encodeRange(wireHeader{}, res, cold))
	buf := r.bufs.Materialize()
	if rows.read < coldKeys/2 {
		t.Errorf("%d rows of %d were read", rows.read, coldKeys)
	}
	for i, part := range cold.ahead.parts[:len(cold.ahead.parts)-1] {
		if part != nil {
			t.Fatalf("part %d of %d is held", i, len(cold.ahead.parts))
		}
	}
	cold.free()
	r.bufs.Free()
	var got pb.RangeResponse
	if err := proto.Unmarshal(buf, &got); err != nil {
		t.Fatal(err)
	}
	wantKVs(t, "list", got.Kvs, want)
}

// toldRows looks at what is told before it is read.
type toldRows struct {
	mvcc.RowReader
	t     *testing.T
	told  map[mvcc.RowKey]int
	bytes int
	read  int
}

func (r *toldRows) ReadAhead(rows []mvcc.RowAhead) {
	for _, row := range rows {
		if _, ok := r.told[row.Row]; ok {
			r.t.Errorf("row %v is told again", row.Row)
		}
		r.told[row.Row] = row.Bytes
		r.bytes += row.Bytes
	}
	if r.bytes > coldAheadBytes+2*encodeChunkBytes {
		r.t.Errorf("%d bytes are told ahead", r.bytes)
	}
	r.RowReader.ReadAhead(rows)
}

func (r *toldRows) AppendRow(dst []byte, k mvcc.RowKey) ([]byte, error) {
	n, ok := r.told[k]
	if !ok {
		r.t.Errorf("row %v was not told", k)
	}
	r.told[k], r.bytes = 0, r.bytes-n
	r.read++
	return r.RowReader.AppendRow(dst, k)
}
