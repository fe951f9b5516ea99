package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// recorded is a recorder of writes that took 1..n ms.
func recorded(n int) *recorder {
	r := newRecorder()
	for i := range n {
		r.wrote("status", time.Time{}, time.Duration(i+1)*time.Millisecond, acked)
	}
	r.wrote("event", time.Time{}, time.Hour, refused)
	r.wrote("event", time.Time{}, time.Hour, unknown)
	r.read(time.Millisecond)
	r.lateWrite(2 * time.Millisecond)
	r.synced(time.Time{}.Add(time.Hour), time.Duration(n)*time.Millisecond)
	return r
}

// example is a run of eight windows, the odd ones with twice as many writes.
func example() *run {
	r := &run{Server: "shim"}
	var recorders []*recorder
	for i, name := range []string{quiet, "compaction", quiet, together, together, quiet, together, quiet} {
		rec := recorded(100 * (1 + i%2))
		f := figuresOf(name, rec)
		f.Elsewhere = i == 4
		f.Seconds, f.CPU = 10, float64(i)
		f.RSS, f.Disk, f.Heap, f.WAL = int64(i)*100e6, 5e6, 7e6, 1e6
		r.Phases = append(r.Phases, f)
		recorders = append(recorders, rec)
	}
	r.ratios(recorders)
	r.flatness(1.5)
	return r
}

func TestFigures(t *testing.T) {
	f := figuresOf("x", recorded(1000))
	if f.Writes != 1000 || f.Refused != 1 || f.Unknown != 1 || f.P50 != 500*time.Millisecond || f.P99 != 990*time.Millisecond || f.P999 != 999*time.Millisecond || f.Max != time.Second {
		t.Errorf("%+v", f)
	}
	if f.Gets.Max != time.Millisecond || f.Late != 2*time.Millisecond {
		t.Errorf("gets %+v, late %v", f.Gets, f.Late)
	}
}

// TestRatios: equal windows are one row, compared with the quiet ones next to them
// together; what went on elsewhere is a row of its own.
func TestRatios(t *testing.T) {
	r := example()
	var rows []string
	for _, f := range r.Summary {
		rows = append(rows, f.title())
	}
	if got := strings.Join(rows, "; "); got != "quiet; compaction; all of it together; all of it together, elsewhere" {
		t.Fatal(got)
	}
	calm, compaction, all, other := r.Summary[0], r.Summary[1], r.Summary[2], r.Summary[3]
	if calm.Writes != 600 || calm.Seconds != 40 || calm.CPU != 3.5 || calm.Ratio != 0 {
		t.Errorf("quiet: %+v", calm)
	}
	if compaction.Writes != 200 || compaction.Quiet.P99 != 99*time.Millisecond || compaction.Ratio != 2 || compaction.CalmRatio != 2 || compaction.ProbeQuiet.Max != 100*time.Millisecond {
		t.Errorf("compaction: %+v", compaction)
	}
	// Windows 3 and 6 between the quiet ones 2, 5 and 7, of 100, 200 and 200 writes.
	if all.Writes != 300 || all.RSS != 600e6 || all.Quiet.P99 != 198*time.Millisecond || len(all.CalmRatios) != 2 || all.CalmRatios[0] != float64(198)/197 {
		t.Errorf("together: %+v", all)
	}
	if other.Writes != 100 || other.Quiet.P99 != 197*time.Millisecond || other.Ratio != float64(99)/197 {
		t.Errorf("elsewhere: %+v", other)
	}
}

func TestFlatness(t *testing.T) {
	r := example() // RSS goes from 300 to 600 MB, what went on elsewhere aside
	if why := r.failed(); len(why) != 1 || !strings.HasPrefix(why[0], "RSS is not flat") {
		t.Errorf("failed: %q", why)
	}
	r.Problems = []string{"lost"}
	if why := r.failed(); len(why) != 2 || why[0] != "lost" {
		t.Errorf("failed: %q", why)
	}
}

func TestReport(t *testing.T) {
	rep := report{example()}
	var out bytes.Buffer
	rep.markdown(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5 || !strings.Contains(lines[4], " | 0.50 | ") || !strings.HasPrefix(lines[2], "| quiet | ") || strings.Count(lines[0], "|") != strings.Count(lines[4], "|") {
		t.Errorf("table:\n%s", out.String())
	}
	path := t.TempDir() + "/soak.json"
	if err := rep.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(rep)
	b, _ := json.Marshal(again)
	if !bytes.Equal(a, b) {
		t.Errorf("read %s, wrote %s", b, a)
	}
	out.Reset()
	again[0].Summary[1].CalmRatio = ratioAim + 0.1
	again.print(&out)
	for _, want := range []string{"  not met  p99 1.40 of quiet (at most 1.3), with the disk's stalls 2.00: compaction", "  met ", "WRONG: RSS is not flat", "flat: disk"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestReadme: what the README shows is the run whose figures are beside it.
func TestReadme(t *testing.T) {
	rep, err := readReport("../../docs/soak.json")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := rep.table().Put(readme)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readme, want) {
		t.Error("the README's table is not that of docs/soak.json; go run ./test/soak -from docs/soak.json -readme README.md")
	}
}

// TestPhases: the lengths of all windows are the whole length, and each window with
// something in it has quiet ones next to it or to its other half.
func TestPhases(t *testing.T) {
	sum := 0.0
	for _, p := range phases(roundsOfLength, "") {
		sum += p.share
		if len(p.with) > 0 {
			sum += settleShare
		}
	}
	if sum < 0.9 || sum > 1.08 {
		t.Errorf("the phases are %.2f of the length", sum)
	}
	var names []string
	for _, p := range phases(2, "LIST storms at,snapshots,quota") {
		names = append(names, p.title())
	}
	round := "quiet; snapshots; snapshots, elsewhere; quiet; LIST storms at loopback speed; quiet; quota reached and cleared; the same fill, far from the quota; "
	if got := strings.Join(names, "; "); got != round+round+"quiet" {
		t.Error(got)
	}
}

// TestStalls: a write that a stall has met is left out, and none besides.
func TestStalls(t *testing.T) {
	r, at := newRecorder(), time.Unix(100, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	r.synced(ms(0), stallMin-1)
	r.synced(ms(100), 50*time.Millisecond)
	for _, w := range []struct{ due, took int }{{0, 100}, {90, 11}, {149, 1}, {150, 2}, {50, 200}} {
		r.wrote("status", ms(w.due), time.Duration(w.took)*time.Millisecond, acked)
	}
	took, stalled := calmOf(r)
	if want := []time.Duration{100 * time.Millisecond, 2 * time.Millisecond}; !slices.Equal(took, want) || stalled != 50*time.Millisecond {
		t.Errorf("%v, stalled %v", took, stalled)
	}
}

// TestParts: the writes of a part are those that were due in it, in all windows, and
// the quota's are compared with the same fill without it.
func TestParts(t *testing.T) {
	at := time.Unix(100, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	window := func(parts []marked, slowest int) *recorder {
		r := newRecorder()
		for i := range 10 {
			r.wrote("status", ms(10*i), time.Duration(slowest-9+i)*time.Millisecond, acked)
		}
		r.divide(parts)
		return r
	}
	parts := []marked{{ms(20), "filling"}, {ms(50), "clearing"}}
	stalled := window(parts, 10)
	stalled.synced(ms(41), stallMin) // meets the writes that were due at 40, 50 and 60
	names, took := partsOf(window(parts, 20), stalled, window(nil, 30))
	want := map[string][]time.Duration{}
	for name, all := range map[string][]int{"filling": {13, 14, 15, 3, 4}, "clearing": {16, 17, 18, 19, 20, 8, 9, 10}} {
		for _, n := range all {
			want[name] = append(want[name], time.Duration(n)*time.Millisecond)
		}
	}
	if !slices.Equal(names, []string{"filling", "clearing"}) || !maps.EqualFunc(took, want, slices.Equal) {
		t.Errorf("%q %v, want %v", names, took, want)
	}

	r := &run{Server: "shim"}
	recorders := []*recorder{window(nil, 20), window(parts, 40), window(nil, 10), window(nil, 20)}
	for i, name := range []string{quiet, quotaCleared, fillAlone, quiet} {
		r.Phases = append(r.Phases, figuresOf(name, recorders[i]))
	}
	r.ratios(recorders)
	if f, _ := r.row(quotaCleared, false); f.OfFill != 4 || len(f.Parts) != 2 || f.Parts[0].Ratio != 35.0/20 || f.Parts[1].Writes != 5 {
		t.Errorf("%+v", f)
	}
	var out bytes.Buffer
	report{r}.print(&out)
	for _, want := range []string{"of quiet (at most 1.3), with the disk's stalls 2.00: quota reached and cleared; in windows 2.00; 4.00 of the same fill without a quota\n", "(load)", "3 writes filling:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestProbe: what it measures goes to the recorder of the moment.
func TestProbe(t *testing.T) {
	p, err := newProbe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	r := newRecorder()
	p.now.Store(r)
	for len(syncsOf(r)) < 2 {
		if !pause(t.Context(), time.Millisecond) {
			t.Fatal("nothing was measured")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoSpace(t *testing.T) {
	for err, want := range map[error]bool{rpctypes.ErrGRPCNoSpace: true, rpctypes.ErrGRPCRequestTooLarge: false, context.Canceled: false, status.Error(codes.ResourceExhausted, "x"): false} {
		if noSpace(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}

func TestTrace(t *testing.T) {
	begin := time.Unix(100, 0)
	n, r := newNotes(), newRecorder()
	n.mark(begin.Add(time.Second), "compaction")
	r.wrote("status", begin.Add(1500*time.Millisecond), 7*time.Millisecond, acked)
	r.wrote("event", begin.Add(500*time.Millisecond), time.Millisecond, acked)
	var out bytes.Buffer
	n.trace(&out, begin, r)
	if got, want := out.String(), "    1.000 compaction\n    1.500   status took 7.0 ms\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	n.count("lists", 0)
	n.count("defragmentations", 3*time.Millisecond)
	if got, want := n.String(), "1 defragmentations (the longest 3ms), 1 lists"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
