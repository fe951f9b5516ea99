package main

import (
	"bytes"
	"context"
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

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		of   []time.Duration
		q    float64
		want time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{1, 2}, 0.5, 1},
		{[]time.Duration{1, 2, 3}, 0.5, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred[:10], 0.99, 10},
	} {
		if got := quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile %v of %d values: %d, want %d", c.q, len(c.of), got, c.want)
		}
	}
	var f figures
	f.latencies([]time.Duration{3, 1, 2})
	if f.P50 != 2 || f.P99 != 3 || f.Max != 3 {
		t.Errorf("latencies: %+v", f)
	}
}

func TestProcParsing(t *testing.T) {
	cpu, err := parseStat([]byte("42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1"))
	if want := 1750 * time.Millisecond; err != nil || cpu != want {
		t.Errorf("stat: %v %v, want %v", cpu, err, want)
	}
	if _, err := parseStat([]byte("42 (x) S 1 2")); err == nil {
		t.Error("a short stat was accepted")
	}
	status := []byte("VmRSS:\t  12 kB\nvoluntary_ctxt_switches:\t77\nnonvoluntary_ctxt_switches:\t5\nempty:\n")
	for name, want := range map[string]int64{"VmRSS": 12, "voluntary_ctxt_switches": 77, "nonvoluntary_ctxt_switches": 5} {
		if got, err := parseField(status, name); err != nil || got != want {
			t.Errorf("%s: %d %v", name, got, err)
		}
	}
	for _, name := range []string{"none", "empty"} {
		if _, err := parseField(status, name); err == nil {
			t.Errorf("%s was found", name)
		}
	}
}

// TestProcessCPU compares the clock with what this process knows to have used.
func TestProcessCPU(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := byte(0)
	for i := range 200 {
		sum += payload(10_000, uint64(i))[0]
	}
	after, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("2 MB of payload (%d) took no CPU: %v, then %v", sum, before, after)
	}
}

// fakeTime is a clock that waits by moving on; each look at it takes a little.
type fakeTime struct {
	at   time.Time
	look time.Duration
}

func (c *fakeTime) pacer(rate float64) pacer {
	return pacer{rate: rate,
		now: func() time.Time { c.at = c.at.Add(c.look); return c.at },
		wait: func(_ context.Context, d time.Duration) error {
			c.at = c.at.Add(d)
			return nil
		}}
}

func TestPacerKeepsItsRate(t *testing.T) {
	c := &fakeTime{at: time.Unix(1000, 0)}
	begin, stop := c.at, make(chan struct{})
	var at []time.Duration
	late, err := c.pacer(200).run(t.Context(), stop, func(i int) {
		if i != len(at) {
			t.Errorf("operation %d after %d", i, len(at))
		}
		at = append(at, c.at.Sub(begin))
		switch i {
		case 10: // this one holds the loop up for 20 of the 5 ms steps
			c.at = c.at.Add(100 * time.Millisecond)
		case 40:
			close(stop)
		}
	})
	if err != nil || len(at) != 41 || len(late) != 41 {
		t.Fatalf("%d fired, %d known, %v", len(at), len(late), err)
	}
	for i, want := range map[int]time.Duration{0: 0, 10: 50 * time.Millisecond, 11: 150 * time.Millisecond, 29: 150 * time.Millisecond, 31: 155 * time.Millisecond, 40: 200 * time.Millisecond} {
		if at[i] != want {
			t.Errorf("operation %d at %v, want %v", i, at[i], want)
		}
	}
	if late[5] != 0 || late[11] != 95*time.Millisecond || late[31] != 0 {
		t.Errorf("late: %v", late)
	}
}

func TestPacerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &fakeTime{at: time.Unix(1000, 0), look: time.Microsecond}
	_, err := c.pacer(10).run(ctx, make(chan struct{}), func(i int) {
		if i == 3 {
			cancel()
		}
		if i > 3 {
			t.Error("fired after the end")
		}
	})
	if err == nil {
		t.Error("no error")
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
	want, err := r.putTable(readme)
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
	if _, err := r.putTable([]byte("no marks")); err == nil {
		t.Error("a text without marks was written to")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.006: "1.01", 2.04: "2.0", 19.96: "20.0", 20.4: "20", 999: "999", 1234.5: "1,234", 1e6: "1,000,000", -1234: "-1,234", -0.25: "-0.25"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}
