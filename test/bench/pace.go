package main

import (
	"context"
	"sync"
	"time"
)

// pacer tells when the operations of an open loop are due: at a steady rate,
// whatever the answers do.
type pacer struct {
	rate float64 // per second
	now  func() time.Time
	wait func(context.Context, time.Duration) error
}

func newPacer(rate float64) pacer {
	return pacer{rate: rate, now: time.Now, wait: func(ctx context.Context, d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}}
}

// run calls fire(0), fire(1)... each at its time until stop is closed, and
// answers how late each was: a client that cannot keep up shows there. An
// operation that is late does not move those behind it.
func (p pacer) run(ctx context.Context, stop <-chan struct{}, fire func(i int)) (late []time.Duration, err error) {
	begin := p.now()
	for i := 0; ; i++ {
		due := begin.Add(time.Duration(float64(i) / p.rate * float64(time.Second)))
		if d := due.Sub(p.now()); d > 0 {
			if err := p.wait(ctx, d); err != nil {
				return late, err
			}
		}
		select {
		case <-stop:
			return late, nil
		case <-ctx.Done():
			return late, ctx.Err()
		default:
		}
		late = append(late, max(0, p.now().Sub(due)))
		fire(i)
	}
}

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
	late, err := newPacer(rate).run(ctx, stop, func(i int) { jobs <- job{i, time.Now()} })
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
