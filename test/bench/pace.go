package main

import (
	"context"
	"sync"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
)

// openLoop runs op at a steady rate until stop is closed, and measures the
// server over it. A latency counts from the moment when the operation was
// handed out, the wait for one of the pacedWorkers included.
func openLoop(ctx context.Context, s *server, rate float64, stop <-chan struct{}, op func(ctx context.Context, worker, i int) error) (figures, error) {
	const pacedWorkers, queue = 64, 4096
	type job struct {
		i  int
		at time.Time
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before, err := s.usage()
	if err != nil {
		return figures{}, err
	}
	var (
		jobs = make(chan job, queue)
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []time.Duration // guarded by mu
	)
	for w := range pacedWorkers {
		wg.Go(func() {
			for j := range jobs {
				if ctx.Err() != nil {
					continue
				}
				if err := op(ctx, w, j.i); err != nil {
					cancel(err)
				}
				d := time.Since(j.at)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	late, err := measure.NewPacer(rate).Run(ctx, stop, func(i int, _ time.Time) { jobs <- job{i, time.Now()} })
	close(jobs)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return figures{}, cause
	}
	if err != nil {
		return figures{}, err
	}
	f, err := finish(s, took, before)
	var lateness figures
	lateness.latencies(late)
	f.Late = lateness.P99
	return f, err
}

// closeAfter answers a channel that is closed after d, for the stop of a paced
// load.
func closeAfter(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}
