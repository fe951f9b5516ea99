package main

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestLatencies(t *testing.T) {
	var f figures
	f.latencies([]time.Duration{3, 1, 2})
	if f.P50 != 2 || f.P99 != 3 || f.Max != 3 {
		t.Errorf("latencies: %+v", f)
	}
}

func TestWatchBatch(t *testing.T) {
	encode := func(r *pb.WatchResponse) []byte {
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	event := func(seq uint64) *mvccpb.Event {
		kv := &mvccpb.KeyValue{Key: []byte("k"), Value: stamped(payload(20, 1), seq), ModRevision: 9}
		old := &mvccpb.KeyValue{Key: []byte("k"), Value: stamped(payload(20, 2), 77)}
		return &mvccpb.Event{Kv: kv, PrevKv: old}
	}
	b := watchBatch{wantSeqs: true}
	if err := b.parse(encode(&pb.WatchResponse{Header: header(3), Events: []*mvccpb.Event{event(5), event(1 << 40)}})); err != nil {
		t.Fatal(err)
	}
	if b.events != 2 || !slices.Equal(b.seqs, []uint64{5, 1 << 40}) || b.created || b.canceled {
		t.Errorf("%+v", b)
	}
	if err := b.parse(encode(&pb.WatchResponse{Header: header(3), WatchId: 4, Created: true, Canceled: true, CancelReason: "why"})); err != nil {
		t.Fatal(err)
	}
	if b.events != 0 || len(b.seqs) != 0 || !b.created || !b.canceled || b.reason != "why" || !b.wantSeqs {
		t.Errorf("%+v", b)
	}
	whole := encode(&pb.WatchResponse{Events: []*mvccpb.Event{event(5)}})
	if err := b.parse(whole[:len(whole)-3]); err == nil {
		t.Error("a cut message was read")
	}
}

func TestTrips(t *testing.T) {
	trip := newTrips(3)
	for i, at := range []int64{100, 200, 300} {
		trip.sent[i].Store(at)
		trip.answered[i].Store(at + 50)
	}
	trip.arrive(0, &watchBatch{seqs: []uint64{0, 2}}, trip.begin.Add(340))
	trip.arrive(7, &watchBatch{seqs: []uint64{1}}, trip.begin.Add(290))
	sent, answered := trip.latencies()
	if !slices.Equal(sent, []time.Duration{240, 40, 90}) || !slices.Equal(answered, []time.Duration{190, 0, 40}) {
		t.Errorf("from sent %v, from answer %v", sent, answered)
	}
}

func TestPlan(t *testing.T) {
	names := func(o options) string {
		var all []string
		for _, g := range plan(o) {
			for _, r := range g.rows {
				all = append(all, r.name)
			}
			all = append(all, "("+strings.Join(g.servers, " ")+")")
		}
		return strings.Join(all, " ")
	}
	both := []string{"floor", "shim"}
	for _, c := range []struct {
		o    options
		want string
	}{
		{options{servers: both, only: []string{"update"}}, "create update (floor shim)"},
		{options{servers: both, only: []string{"count-1m", "restart"}}, "create restart (floor shim) fill-1m count-1m (floor shim)"},
		{options{servers: []string{"kine", "shim"}, only: []string{"flight"}}, "fill-flight flight (shim)"},
		{options{servers: []string{"kine"}, only: []string{"200k"}}, ""},
		{options{servers: everyone, only: []string{"kill-leader"}}, "create-members kill-leader (etcd shim)"},
	} {
		if got := names(c.o); got != c.want {
			t.Errorf("%v: %q, want %q", c.o.only, got, c.want)
		}
	}
	if quick := names(options{servers: both, quick: true}); strings.Contains(quick, "200k") || !strings.Contains(quick, "flight") {
		t.Errorf("quick: %q", quick)
	}
	if got := unknown(options{only: []string{"create", "values", "lists"}}); !slices.Equal(got, []string{"lists"}) {
		t.Errorf("unknown: %v", got)
	}
}

func TestAims(t *testing.T) {
	// A typed name here or in the rows would never be judged.
	made, err := readReport("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range aims {
		if _, ok := made.value(a, "shim"); !ok {
			t.Errorf("the full report has no figure for %q", a.name)
		}
	}
	for _, h := range headlines {
		if made.Figures[h.row] == nil {
			t.Errorf("the full report has no row %q", h.row)
		}
	}

	r := newReport(options{})
	r.add("shim", "create", "µs", figures{Value: 48})
	r.add("floor", "create", "µs", figures{Value: 30})
	r.add("shim", "get", "µs", figures{Value: 40})
	r.add("shim", "idle, heartbeat p50", "ms", figures{Value: 0.5})
	r.add("floor", "idle, heartbeat p50", "ms", figures{Value: 0.4})
	r.add("shim", "compaction, write p99", "ms", figures{Value: 3.1, Before: 2 * time.Millisecond})
	r.add("shim", "get, 64 in flight", "1/s", figures{Value: 1000})
	r.add("shim", "get, 1000 in flight", "1/s", figures{Value: 999})
	r.add("shim", "updates/s, 3 members", "1/s", figures{Value: 900})
	r.add("etcd", "updates/s, 3 members", "1/s", figures{Value: 300})
	r.judge()
	if len(r.Aims) != 5 {
		t.Fatalf("%d judged: %+v", len(r.Aims), r.Aims)
	}
	for i, want := range []struct {
		figure, floor float64
		met           bool
	}{{1.6, 0, true}, {0.5, 0.4, true}, {1.55, 0, false}, {0.999, 0, false}, {3, 0, true}} {
		v := r.Aims[i]
		floor := 0.0
		if v.Floor != nil {
			floor = *v.Floor
		}
		if v.Met != want.met || v.Figure != want.figure || floor != want.floor {
			t.Errorf("%+v, want %+v", v, want)
		}
	}
}

func TestLongestGap(t *testing.T) {
	begin := time.Unix(1000, 0)
	var at []time.Time
	for _, ms := range []int{-500, 30, 10, 400, 40} { // as they were answered by several
		at = append(at, begin.Add(time.Duration(ms)*time.Millisecond))
	}
	if got := longestGap(begin, at); got != 360*time.Millisecond {
		t.Errorf("between answers: %v", got)
	}
	if got := longestGap(begin, []time.Time{begin.Add(400 * time.Millisecond)}); got != 400*time.Millisecond {
		t.Errorf("until the first: %v", got)
	}
}

// TestGolden draws and prints a fixed report.
func TestGolden(t *testing.T) {
	r, err := readReport("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	var table, markdown bytes.Buffer
	r.print(&table)
	r.markdown(&markdown)
	for file, got := range map[string][]byte{"report.svg": r.svg(), "report.txt": table.Bytes(), "report.md": markdown.Bytes()} {
		path := "testdata/" + file
		if *rewrite {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs; look at it, then run with -rewrite. It is now:\n%s", path, got)
		}
	}
}

// TestReadme: what the README shows is the run whose figures are beside it.
func TestReadme(t *testing.T) {
	r, err := readReport("../../docs/bench.json")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := r.table().Put(readme)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readme, want) {
		t.Error("the README's table is not that of docs/bench.json; go run ./test/bench -from docs/bench.json -readme README.md")
	}
	picture, err := os.ReadFile("../../docs/bench.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(picture, r.svg()) {
		t.Error("docs/bench.svg is not that of docs/bench.json; go run ./test/bench -from docs/bench.json -svg docs/bench.svg")
	}
	if _, err := r.table().Put([]byte("no marks")); err == nil {
		t.Error("a text without marks was written to")
	}
}
