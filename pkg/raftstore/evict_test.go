package raftstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// contents is every key with its value as a reader gets them, from memory or not.
func contents(t testing.TB, v *mvcc.View) string {
	t.Helper()
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	rows := &mvcc.LazyReader{Begin: func() (mvcc.RowReader, error) { return v.Rows(0) }}
	defer rows.Close()
	var out strings.Builder
	for _, x := range res.Versions {
		var kv mvccpb.KeyValue
		b, err := x.Encoding().Read(rows)
		if err == nil {
			err = proto.Unmarshal(b, &kv)
		}
		if err != nil {
			t.Fatalf("read %q: %v", x.Key(), err)
		}
		fmt.Fprintf(&out, "%v\n", &kv)
	}
	return out.String()
}

// onApply runs do where the state may be used.
func onApply(t testing.TB, s *Store, do func(a *applier)) {
	t.Helper()
	if err := s.checkpoint.onApply(func() { do(s.apply) }); err != nil {
		t.Fatal(err)
	}
}

// evictAll lets everything leave memory that a checkpoint holds.
func evictAll(t testing.TB, s *Store) {
	t.Helper()
	onApply(t, s, func(a *applier) {
		for a.state.EvictStep(mvcc.Room{Live: 1, History: 1}, 0) == mvcc.EvictionMore {
		}
		a.publish(nil)
	})
}

// fitted waits until no eviction is under way.
func fitted(t testing.TB, s *Store) mvcc.Residency {
	t.Helper()
	for {
		var busy bool
		onApply(t, s, func(a *applier) { busy = a.evicting || a.blocked })
		if !busy {
			return s.View().Residency()
		}
		if err := s.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEvictedSurvivesRestart(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	for i := range 100 {
		put(t, s, fmt.Sprintf("k%02d", i%50), strings.Repeat(fmt.Sprint(i), 100))
	}
	want := contents(t, s.View())
	evictAll(t, s)
	if r := s.View().Residency(); r.Evictions != 0 {
		t.Errorf("%d versions left before any checkpoint", r.Evictions)
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	evictAll(t, s)
	if r := s.View().Residency(); r.Live != 0 || r.History != 0 || r.Evictions != 100 {
		t.Errorf("after an eviction of everything: %+v", r)
	}
	if got := contents(t, s.View()); got != want {
		t.Errorf("read from the file:\n%s\nwant\n%s", got, want)
	}
	if err := s.Defragment(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s.View()); got != want {
		t.Errorf("read from the defragmented file:\n%s\nwant\n%s", got, want)
	}
	// A value that has left memory is compared, kept by a put, and is the previous one of an event.
	res, err := s.Propose(context.Background(), Command{Kind: mvcc.KindTxn, Request: &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k07"), Target: pb.Compare_VALUE,
			TargetUnion: &pb.Compare_Value{Value: []byte(strings.Repeat("57", 100))}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k08"), IgnoreValue: true}}}},
	}}})
	if err != nil || !res.Response.(*mvcc.TxnResult).Succeeded || len(res.Events) != 1 {
		t.Fatalf("txn over evicted values: %+v %v", res, err)
	}
	want = contents(t, s.View())
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	if got := contents(t, s.View()); got != want {
		t.Errorf("after a restart:\n%s\nwant\n%s", got, want)
	}
}

// TestLoadBeyondLimit: what does not fit is not brought into memory by a start.
func TestLoadBeyondLimit(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	for i := range 2000 {
		put(t, s, fmt.Sprintf("k%04d", i), strings.Repeat(string(rune('a'+i%26)), 12_000))
	}
	want := contents(t, s.View())
	closeStore(t, s)
	h.adjust = func(c *Config) { c.Memory.Limit = compact.MemoryLimitMin }
	s = h.open()
	defer closeStore(t, s)
	r := s.View().Residency()
	if r.Live > compact.MemoryLimitMin/2 || r.Live < compact.MemoryLimitMin/4 || r.Live+r.LiveEvicted < 24_000_000 {
		t.Errorf("24 MB loaded with a limit of %d: %+v", compact.MemoryLimitMin, r)
	}
	if newest := s.View().Get([]byte("k1999")); !newest.Encoding().Resident() {
		t.Error("the newest version is not in memory")
	}
	if got := contents(t, s.View()); got != want {
		t.Error("the contents differ")
	}
}

// TestHistoryBudget: what a storm of writes leaves behind spills, for which a checkpoint is made.
func TestHistoryBudget(t *testing.T) {
	const budget = 64 << 10
	h, registry := newHarness(t), prometheus.NewRegistry()
	h.adjust = func(c *Config) { c.Memory, c.Registerer = compact.Memory{HistoryBytes: budget}, registry }
	s := h.open()
	defer closeStore(t, s)
	for i := range 1000 {
		put(t, s, fmt.Sprintf("k%d", i%10), strings.Repeat("v", 1000))
	}
	r := fitted(t, s)
	if r.History > budget || r.History+r.HistoryEvicted < 900_000 || r.LiveEvicted != 0 {
		t.Errorf("history of 1 MB with a budget of %d: %+v", budget, r)
	}
	if got := gauge(t, registry, "shim_history_spilled_bytes"); got != float64(r.HistoryEvicted) {
		t.Errorf("shim_history_spilled_bytes is %v, %d bytes have been spilled", got, r.HistoryEvicted)
	}
	reasons := 0
	for _, e := range h.structs {
		if c, ok := e.(CheckpointDone); ok && c.Reason == string(compact.CheckpointMemory) {
			reasons++
		}
	}
	if reasons == 0 {
		t.Error("no checkpoint was made for the history")
	}
	hash, _, _, err := s.View().HashKV(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	events := 0
	rows := &mvcc.LazyReader{Begin: func() (mvcc.RowReader, error) { return s.View().Rows(0) }}
	defer rows.Close()
	if err := s.View().History(1, 2000, func(e mvcc.Event) bool {
		kv, err := e.Version.Encoding().Read(rows)
		if err != nil || len(kv) != e.Version.Size() {
			t.Errorf("replay of revision %d: %d bytes, %v", e.Version.Mod(), len(kv), err)
		}
		events++
		return true
	}); err != nil || events != 1000 {
		t.Errorf("replay of %d events: %v", events, err)
	}
	if again, _, _, err := s.View().HashKV(context.Background(), 0); err != nil || again != hash {
		t.Errorf("hash %x, then %x %v", hash, again, err)
	}
}

func gauge(t testing.TB, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return value(f.GetMetric()[0])
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func value(m *dto.Metric) float64 {
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// TestFlippedBitIsNotServed: a row that changed on the disk is an error to who reads it, and ends the store if an entry needs it.
func TestFlippedBitIsNotServed(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	value := strings.Repeat("needle", 50)
	put(t, s, "k", value)
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	evictAll(t, s)
	file, err := os.ReadFile(h.db)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(file), value)
	f, err := os.OpenFile(h.db, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("N"), int64(at)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	rows, err := s.View().Rows(0)
	if err != nil {
		t.Fatal(err)
	}
	var lost *mvcc.ReadError
	if kv, err := s.View().Get([]byte("k")).Encoding().Read(rows); !errors.As(err, &lost) {
		t.Errorf("read %q, %v", kv, err)
	}
	rows.Close()
	_, err = s.Propose(context.Background(), Command{Kind: mvcc.KindPut, Request: &pb.InternalRaftRequest{
		Put: &pb.PutRequest{Key: []byte("k"), IgnoreValue: true}}})
	if err == nil {
		t.Error("a put that keeps a value which cannot be read succeeded")
	}
	<-s.Failed()
	if !errors.As(s.Err(), &lost) {
		t.Errorf("the store failed with %v", s.Err())
	}
	// Until the process has ended, nothing makes of the state what the next start would take for it.
	if err := s.Checkpoint(context.Background()); err == nil {
		t.Error("a checkpoint of a state that lacks an entry")
	}
	_ = s.halt()
	if f, err = os.OpenFile(h.db, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("n"), int64(at)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = h.open() // the disk has found it again
	defer closeStore(t, s)
	if got := get(t, s, "k"); got != value {
		t.Errorf("k = %q", got)
	}
}
