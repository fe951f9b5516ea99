package compact

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// host runs an Auto in lock-step: the Auto hands each of its waits to the test,
// which moves the clock on and lets it go. What the Auto uses is changed only
// while it waits.
type host struct {
	start, now time.Time
	rev        mvcc.Revision
	paused     bool
	err        error
	log        []string
	asked      []mvcc.Revision
	waits      chan wait
	wait       wait
	stop       func()
}

type wait struct {
	d time.Duration
	c chan time.Time
}

func startHost(t testing.TB, o Options) *host {
	start := time.Unix(1700000000, 0)
	h := &host{start: start, now: start, rev: 1, waits: make(chan wait)}
	a, err := New(o, Env{
		Revision: func() mvcc.Revision { return h.rev },
		Compact: func(_ context.Context, rev mvcc.Revision) error {
			h.asked = append(h.asked, rev)
			return h.err
		},
		Now: func() time.Time { return h.now },
		After: func(d time.Duration) <-chan time.Time {
			c := make(chan time.Time, 1)
			h.waits <- wait{d, c}
			return c
		},
		Paused: func() bool { return h.paused },
		Event:  func(e Event) { h.log = append(h.log, fmt.Sprintf("%v: %v", h.now.Sub(start), e)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(ctx) }()
	h.wait = <-h.waits
	h.stop = func() { cancel(); <-ended }
	return h
}

// tick lets one wait pass and answers when the Auto waits again.
func (h *host) tick() {
	h.now = h.now.Add(h.wait.d)
	h.wait.c <- h.now
	h.wait = <-h.waits
}

// TestAuto runs the scenarios of testdata/auto.txt: a store that writes at a
// steady pace, and at which time which revision is compacted.
func TestAuto(t *testing.T) {
	datadriven.RunTest(t, "testdata/auto.txt", func(t *testing.T, d *datadriven.TestData) string {
		var mode, retention string
		d.ScanArgs(t, "mode", &mode)
		d.ScanArgs(t, "retention", &retention)
		o, err := ParseOptions(mode, retention)
		if err != nil {
			return err.Error() + "\n"
		}
		if d.Cmd == "parse" {
			return fmt.Sprintf("period %v, keep %d, enabled %v\n", o.Period, o.Keep, o.Enabled())
		}
		h := startHost(t, o)
		defer h.stop()
		fmt.Fprintf(&logWriter{&h.log}, "tick %v", h.wait.d)
		for line := range strings.Lines(d.Input) {
			fields := strings.Fields(line)
			switch fields[0] {
			case "pause":
				h.paused = true
			case "resume":
				h.paused = false
			case "fail":
				h.err = errors.New("no leader")
			case "compacted":
				h.err = fmt.Errorf("compact: %w", mvcc.ErrCompacted)
			case "succeed":
				h.err = nil
			case "run":
				var ticks, writes int
				if _, err := fmt.Sscanf(line, "run ticks=%d writes=%d", &ticks, &writes); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
				for range ticks {
					h.rev += mvcc.Revision(writes)
					h.tick()
				}
			default:
				d.Fatalf(t, "unknown line %q", line)
			}
		}
		return strings.Join(h.log, "\n") + "\n"
	})
}

type logWriter struct{ lines *[]string }

func (w *logWriter) Write(p []byte) (int, error) {
	*w.lines = append(*w.lines, string(p))
	return len(p), nil
}

// TestPeriodicTwin compares the periodic mode with a twin which remembers
// everything and works each answer out from the start.
func TestPeriodicTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := time.Duration(rapid.Int64Range(int64(periodMin), int64(30*time.Hour)).Draw(t, "period"))
		interval := min(period, time.Hour)
		retry := interval / 10
		kept := int(period/retry) + 1

		clock := time.Unix(0, 0)
		k := newKeepPeriod(period, clock)
		var noted []mvcc.Revision
		rev, last := mvcc.Revision(1), mvcc.Revision(0)
		lastAt, tried := clock, false
		if k.tick() != retry {
			t.Fatalf("tick %v, want %v", k.tick(), retry)
		}
		for round := range rapid.IntRange(1, 400).Draw(t, "rounds") {
			rev += mvcc.Revision(rapid.IntRange(0, 3).Draw(t, "writes"))
			k.note(rev)
			noted = append(noted, rev)
			clock = clock.Add(retry)

			oldest := noted[max(0, len(noted)-kept)]
			need := period
			if tried {
				need = interval
			}
			want := clock.Sub(lastAt) >= need && oldest != last
			got, ok := k.due(clock, rev)
			if ok != want || (ok && got != oldest) {
				t.Fatalf("round %d: due %d, %v; want %d, %v", round, got, ok, oldest, want)
			}
			if !ok {
				continue
			}
			tried = true
			if rapid.Bool().Draw(t, "success") {
				k.done(clock, got)
				last, lastAt = got, clock
			}
		}
		if len(k.notes) > kept || cap(k.notes) > 2*kept+8 {
			t.Fatalf("%d notes (room for %d), want %d at most", len(k.notes), cap(k.notes), kept)
		}
	})
}

func TestDisabledRunsNothing(t *testing.T) {
	for _, o := range []Options{{}, {Mode: ModeRevision}, {Mode: ModeRevision, Period: time.Hour}} {
		a, err := New(o, Env{}) // a call of any of its functions would panic
		if err != nil {
			t.Fatal(err)
		}
		a.Run(context.Background())
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	if _, err := New(Options{Mode: "often", Period: time.Nanosecond, Keep: -1}, Env{}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Fatalf("want three errors, got %v", err)
	}
}
