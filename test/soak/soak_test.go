package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	return r
}

// example is a run of six phases.
func example() *run {
	r := &run{Server: "shim"}
	recorders := map[string][]*recorder{}
	for i, name := range []string{quiet, "compaction", together, together, together, quiet} {
		rec := recorded(100 * (1 + i%2))
		f := figuresOf(name, rec)
		f.Seconds, f.CPU = 10, float64(i)
		f.RSS, f.Disk, f.Heap, f.WAL = int64(i)*100e6, 5e6, 7e6, 1e6
		r.Phases = append(r.Phases, f)
		recorders[name] = append(recorders[name], rec)
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

// TestRatios: equal phases are one row, compared with the quiet ones together.
func TestRatios(t *testing.T) {
	r := example()
	if len(r.Summary) != 3 {
		t.Fatalf("%d rows", len(r.Summary))
	}
	calm, all := r.Summary[0], r.Summary[2]
	if calm.Writes != 300 || calm.Seconds != 20 || calm.CPU != 2.5 || calm.Ratio != 1 || calm.P99 != 197*time.Millisecond {
		t.Errorf("quiet: %+v", calm)
	}
	if all.Writes != 400 || all.RSS != 300e6 || all.Ratio != float64(all.P99)/float64(calm.P99) {
		t.Errorf("together: %+v", all)
	}
}

func TestFlatness(t *testing.T) {
	r := example() // RSS goes from 200 to 400 MB
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
	if len(lines) != 5 || !strings.HasPrefix(lines[2], "| quiet | ") || strings.Count(lines[0], "|") != strings.Count(lines[4], "|") {
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
	again[0].Summary[1].Ratio = ratioAim + 0.1
	again.print(&out)
	for _, want := range []string{"  not met  p99 1.40 of quiet (at most 1.3): compaction", "  met ", "WRONG: RSS is not flat", "flat: disk"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestPhases: the lengths of all phases are the whole length, less what the fill, the
// kill and the pauses take.
func TestPhases(t *testing.T) {
	sum := 0.0
	for _, p := range phases(3, "") {
		sum += p.share
	}
	if sum < 0.85 || sum > 1 {
		t.Errorf("the phases are %.2f of the length", sum)
	}
	var names []string
	for _, p := range phases(3, "LIST,quota") {
		names = append(names, p.name)
	}
	if got := strings.Join(names, "; "); got != "quiet; LIST storms; quiet; quota reached and cleared" {
		t.Error(got)
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
