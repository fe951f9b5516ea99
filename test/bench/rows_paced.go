package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
)

const (
	pacedWatchers = 200
	pacedRate     = 500 // updates a second
	pacedSettle   = 30 * time.Second
)

// rowWatchPaced measures how long events are under way at a steady 100,000 a
// second: 500 heartbeats a second, each to 200 watchers. A latency counts from
// before the update was sent to the arrival; the second figure from the
// update's answer, for which an event may come too early.
func rowWatchPaced(ctx context.Context, d *dataset) error {
	load := 12 * time.Second
	if d.quick {
		load = 3 * time.Second
	}
	t := newTrips(int(pacedRate*load.Seconds()) + pacedRate) // more than are sent
	w, err := d.watchAll(ctx, pacedWatchers, func(int) []watchRange {
		return []watchRange{{[]byte(leasePrefix), prefixEnd(leasePrefix)}}
	}, t.arrive)
	if err != nil {
		return err
	}
	defer w.close()
	before, err := d.s.usage()
	if err != nil {
		return err
	}
	f, err := openLoop(ctx, d.s, pacedRate, closeAfter(load), func(ctx context.Context, worker, i int) error {
		lease := i % d.leases
		t.sent[i].Store(int64(time.Since(t.begin)))
		err := d.update(ctx, worker, leaseKey(lease), stamped(payload(leaseBytes, uint64(i)), uint64(i)), &d.beat[lease])
		t.answered[i].Store(int64(time.Since(t.begin)))
		return err
	})
	if err != nil {
		return err
	}
	want := int64(f.Ops) * pacedWatchers
	got, err := w.await(want, pacedSettle)
	if err != nil {
		return err
	}
	if got == 0 {
		return fmt.Errorf("none of %d events arrived", want)
	}
	after, err := d.s.usage()
	if err != nil {
		return err
	}
	w.close() // the arrivals are ours now
	fromSent, fromAnswer := t.latencies()
	f.Ops = len(fromSent)
	f.used(before, after)
	if got < want {
		f.Note = fmt.Sprintf("only %d of %d events arrived; %s", got, want, f.Note)
	}
	f.latencies(fromSent)
	f.Value = f.P99.Seconds() * 1e3
	d.add("watch at 100k events/s", "ms p99", f)
	g := figures{Note: f.Note}
	g.latencies(fromAnswer)
	g.Value = g.P99.Seconds() * 1e3
	d.add("watch at 100k events/s, from the answer", "ms p99", g)
	f.Value = f.perOp()
	d.add("watch at 100k events/s, CPU", "µs CPU/event", f)
	return nil
}

// trips are when updates were sent and answered, and when each watcher got
// them, in nanoseconds since begin.
type trips struct {
	begin          time.Time
	sent, answered []atomic.Int64           // by the update's number
	arrived        [pacedWatchers][]arrival // each of its stream's goroutine
}

type arrival struct {
	seq uint64
	at  int64
}

func newTrips(updates int) *trips {
	t := &trips{begin: time.Now(), sent: make([]atomic.Int64, updates), answered: make([]atomic.Int64, updates)}
	for i := range t.arrived {
		t.arrived[i] = make([]arrival, 0, updates)
	}
	return t
}

func (t *trips) arrive(stream int, b *watchBatch, at time.Time) {
	for _, seq := range b.seqs {
		t.arrived[stream] = append(t.arrived[stream], arrival{seq, int64(at.Sub(t.begin))})
	}
}

// latencies are those of all arrivals; an event that came before its update's
// answer took 0 from there.
func (t *trips) latencies() (fromSent, fromAnswer []time.Duration) {
	for _, list := range t.arrived {
		for _, a := range list {
			fromSent = append(fromSent, time.Duration(a.at-t.sent[a.seq].Load()))
			fromAnswer = append(fromAnswer, max(0, time.Duration(a.at-t.answered[a.seq].Load())))
		}
	}
	return fromSent, fromAnswer
}

// rowIdle is a quiet cluster: 20 heartbeats a second for ten seconds, one
// after the other. Latencies count from the sending.
func rowIdle(ctx context.Context, d *dataset) error {
	const rate = 20
	load := 10 * time.Second
	if d.quick {
		load = 4 * time.Second
	}
	before, err := d.s.usage()
	if err != nil {
		return err
	}
	var took []time.Duration
	var failed error
	late, err := measure.NewPacer(rate).Run(ctx, closeAfter(load), func(i int, _ time.Time) {
		at := time.Now()
		if err := d.heartbeat(ctx, i, i); err != nil && failed == nil {
			failed = err
		}
		took = append(took, time.Since(at))
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	f, err := finish(d.s, took, before)
	if err != nil {
		return err
	}
	var lateness figures
	lateness.latencies(late)
	f.Late = lateness.P99
	f.Value = f.CPU.Seconds() * 1e3 / f.Seconds
	d.add("idle, 20 heartbeats/s", "ms CPU/s", f)
	d.add("idle, heartbeat p50", "ms", figures{Value: f.P50.Seconds() * 1e3})
	if d.s.name != "floor" {
		d.add("idle, written", "B/heartbeat", figures{Value: float64(f.Written) / float64(f.Ops)})
	}
	return nil
}
