package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// figures are what one row measured of one server.
type figures struct {
	Ops     int           `json:"ops"`
	Seconds float64       `json:"seconds"`
	Rate    float64       `json:"rate_per_s"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
	CPU     time.Duration `json:"server_cpu_ns"`
	Bytes   int64         `json:"payload_bytes,omitempty"`
	Peak    int64         `json:"peak_rss_bytes,omitempty"`
	Written int64         `json:"disk_write_bytes"`
	// Value is the row's figure in the row's unit.
	Value float64 `json:"value"`
}

// drive runs ops operations on workers goroutines in a closed loop and
// measures the server over it. The first error ends the load.
func drive(ctx context.Context, s *server, workers, ops int, op func(ctx context.Context, worker, i int) error) (figures, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cpu, err := s.cpu()
	if err != nil {
		return figures{}, err
	}
	written, err := s.written()
	if err != nil {
		return figures{}, err
	}
	took := make([]time.Duration, ops)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= ops {
					return
				}
				at := time.Now()
				if err := op(ctx, w, i); err != nil {
					cancel(err)
					return
				}
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	if err := context.Cause(ctx); err != nil {
		return figures{}, err
	}
	return finish(s, took, elapsed, cpu, written)
}

func finish(s *server, took []time.Duration, elapsed, cpu time.Duration, written int64) (figures, error) {
	cpuAfter, err := s.cpu()
	if err != nil {
		return figures{}, err
	}
	writtenAfter, err := s.written()
	if err != nil {
		return figures{}, err
	}
	if len(took) == 0 {
		return figures{}, errors.New("nothing was measured")
	}
	slices.Sort(took)
	return figures{
		Ops: len(took), Seconds: elapsed.Seconds(), Rate: float64(len(took)) / elapsed.Seconds(),
		P50: took[len(took)/2], P99: took[len(took)*99/100], Max: took[len(took)-1],
		CPU: cpuAfter - cpu, Written: writtenAfter - written,
	}, nil
}

// perOp is the server's CPU per operation in microseconds.
func (f figures) perOp() float64 {
	return float64(f.CPU.Microseconds()) / float64(f.Ops)
}

// perMB is the server's CPU per megabyte of payload in milliseconds.
func (f figures) perMB() float64 {
	return f.CPU.Seconds() * 1e3 / (float64(f.Bytes) / 1e6)
}
