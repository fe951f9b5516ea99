package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
)

// figures are what one row measured of one server.
type figures struct {
	// Value is the row's figure in the row's unit.
	Value     float64       `json:"value"`
	Ops       int           `json:"ops,omitempty"`
	Seconds   float64       `json:"seconds,omitempty"`
	Rate      float64       `json:"rate_per_s,omitempty"`
	P50       time.Duration `json:"p50_ns,omitempty"`
	P99       time.Duration `json:"p99_ns,omitempty"`
	Max       time.Duration `json:"max_ns,omitempty"`
	CPU       time.Duration `json:"server_cpu_ns,omitempty"`
	ClientCPU time.Duration `json:"client_cpu_ns,omitempty"`
	Bytes     int64         `json:"payload_bytes,omitempty"`
	RSS       int64         `json:"rss_bytes,omitempty"`
	Peak      int64         `json:"peak_rss_bytes,omitempty"`
	Written   int64         `json:"disk_write_bytes,omitempty"`
	Switches  int64         `json:"context_switches,omitempty"`
	Calls     int64         `json:"read_write_calls,omitempty"`
	// Late is the 99th percentile of how late the client sent what was due at
	// a steady rate.
	Late time.Duration `json:"client_late_p99_ns,omitempty"`
	// Before is the 99th percentile at the same rate before the work began.
	Before time.Duration `json:"quiet_p99_ns,omitempty"`
	Note   string        `json:"note,omitempty"`
}

// limit bounds a closed loop: by operations and, for what may be slow, by
// time. 0 is no limit.
type limit struct {
	ops     int
	seconds float64
}

// drive runs up to l.ops operations on workers goroutines in a closed loop and
// measures the server over it. The first error ends the load.
func drive(ctx context.Context, s *server, workers int, l limit, op func(ctx context.Context, worker, i int) error) (figures, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	runtime.GC() // what an earlier row left in the client
	before, err := s.usage()
	if err != nil {
		return figures{}, err
	}
	took := make([]time.Duration, l.ops)
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil && (l.seconds == 0 || time.Since(before.at).Seconds() < l.seconds) {
				i := int(next.Add(1)) - 1
				if i >= l.ops {
					return
				}
				at := time.Now()
				if err := op(ctx, w, i); err != nil {
					cancel(err)
					return
				}
				took[i] = time.Since(at)
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return figures{}, err
	}
	return finish(s, took[:done.Load()], before) // every number handed out was done
}

// finish makes figures of the latencies and of what was used since before.
func finish(s *server, took []time.Duration, before usage) (figures, error) {
	after, err := s.usage()
	if err != nil {
		return figures{}, err
	}
	if len(took) == 0 {
		return figures{}, errors.New("nothing was measured")
	}
	f := figures{Ops: len(took)}
	f.latencies(took)
	f.used(before, after)
	return f, nil
}

// latencies fills in p50, p99 and max; it sorts took.
func (f *figures) latencies(took []time.Duration) {
	slices.Sort(took)
	f.P50, f.P99, f.Max = measure.Quantile(took, 0.5), measure.Quantile(took, 0.99), measure.Quantile(took, 1)
}

// used fills in what f.Ops operations have used from one look to the next, and
// notes when client and server together had the machine full: latencies and
// rates are then those of the machine.
func (f *figures) used(before, after usage) {
	u := after.since(before)
	f.CPU, f.ClientCPU, f.Written, f.Switches, f.Calls = u.CPU, u.client, u.Written, u.Switches, u.Calls
	f.Seconds = after.at.Sub(before.at).Seconds()
	f.Rate = float64(f.Ops) / f.Seconds
	f.Note = ""
	if cores := (u.CPU + u.client).Seconds() / f.Seconds; cores > 0.9*float64(runtime.NumCPU()) {
		f.Note = fmt.Sprintf("machine full: server %.2f, client %.2f cores", u.CPU.Seconds()/f.Seconds, u.client.Seconds()/f.Seconds)
	}
}

// perOp is the server's CPU per operation in microseconds.
func (f figures) perOp() float64 {
	return float64(f.CPU.Nanoseconds()) / 1e3 / float64(f.Ops)
}

// perMB is the server's CPU per megabyte of payload in milliseconds.
func (f figures) perMB() float64 {
	return f.CPU.Seconds() * 1e3 / (float64(f.Bytes) / 1e6)
}
