package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// watching is a set of open watch streams whose events are counted.
type watching struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	seen   atomic.Int64
	wake   chan struct{} // a token: look at seen again
}

// watchAll opens streams, each with the watches that ranges answers for it,
// from the next revision on, and counts what arrives. on, if not nil, is
// called with each batch, by the stream's own goroutine.
func (d *dataset) watchAll(ctx context.Context, streams int, ranges func(stream int) []watchRange, on func(stream int, b *watchBatch, at time.Time)) (*watching, error) {
	w := &watching{wake: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	from := d.rev.Load() + 1
	for i := range streams {
		stream, err := openWatches(w.ctx, d.conn(i), from, ranges(i)...)
		if err != nil {
			w.close()
			return nil, err
		}
		stream.batch.wantSeqs = on != nil
		w.wg.Go(func() {
			for {
				batch, at, err := stream.next()
				if err != nil {
					w.cancel(err)
					return
				}
				if on != nil {
					on(i, batch, at)
				}
				w.seen.Add(int64(batch.events))
				select {
				case w.wake <- struct{}{}:
				default:
				}
			}
		})
	}
	return w, nil
}

func (d *dataset) conn(i int) *grpc.ClientConn { return d.s.conn[i%len(d.s.conn)] }

// await waits until want events have arrived, at most for a while; it answers
// how many did.
func (w *watching) await(want int64, most time.Duration) (int64, error) {
	late := time.NewTimer(most)
	defer late.Stop()
	for w.seen.Load() < want {
		select {
		case <-w.wake:
		case <-late.C:
			return w.seen.Load(), nil
		case <-w.ctx.Done():
			return w.seen.Load(), context.Cause(w.ctx)
		}
	}
	return want, nil
}

func (w *watching) close() {
	w.cancel(nil)
	w.wg.Wait()
}

var allPods = []watchRange{{[]byte(podPrefix), prefixEnd(podPrefix)}}

// rowWatch fans updates of pods out to 200 watchers of all pods, with prev_kv
// as apiservers ask for it; the figure is CPU per delivered event, with the
// cost of the updates themselves in it, as in the design's table.
func rowWatch(ctx context.Context, d *dataset) error {
	const watchers = 200
	return d.fanOut(ctx, "watch, 200 on one prefix", watchers, d.few(1500), watchers,
		func(int) []watchRange { return allPods }, func(i int) int { return i % d.pods })
}

// rowWatchPrefixes has few watchers on each of many prefixes.
func rowWatchPrefixes(ctx context.Context, d *dataset) error {
	const each = 4
	return d.fanOut(ctx, "watch, 4 on each of 50 prefixes", each*namespaces, d.few(20_000), each,
		func(i int) []watchRange {
			ns := fmt.Sprintf("%sns-%02d/", podPrefix, i%namespaces)
			return []watchRange{{[]byte(ns), prefixEnd(ns)}}
		}, func(i int) int { return i % d.pods })
}

// updatePods updates pods in a closed loop; values follow from the seed.
func (d *dataset) updatePods(ctx context.Context, updates int, pod func(int) int, seed uint64) (figures, error) {
	return drive(ctx, d.s, 8, limit{ops: updates, seconds: kvSeconds}, func(ctx context.Context, worker, i int) error {
		return d.updatePod(ctx, worker, pod(i), uint64(i)+seed)
	})
}

// unwatched is the CPU that one of updatePods' updates costs with no watcher,
// which the figures "beside the updates" leave out.
func (d *dataset) unwatched(ctx context.Context, updates int, pod func(int) int) (time.Duration, error) {
	f, err := d.updatePods(ctx, updates, pod, 4e9)
	if err != nil {
		return 0, err
	}
	return f.CPU / time.Duration(max(1, f.Ops)), nil
}

// besideUpdates is f, of events from a number of updates, without what the
// updates themselves cost.
func besideUpdates(f figures, updates int, each time.Duration) figures {
	f.CPU = max(0, f.CPU-time.Duration(updates)*each)
	f.Value = f.perOp()
	f.Note = ""
	return f
}

// fanOut updates pods and measures until all their events have arrived; each
// update has perUpdate of them. Where those are few, an event's CPU is mostly the
// update's: a second figure leaves that out.
func (d *dataset) fanOut(ctx context.Context, name string, streams, updates, perUpdate int, ranges func(int) []watchRange, pod func(int) int) error {
	alone, err := d.unwatched(ctx, d.few(4000), pod)
	if err != nil {
		return err
	}
	w, err := d.watchAll(ctx, streams, ranges, nil)
	if err != nil {
		return err
	}
	defer w.close()
	before, err := d.s.usage()
	if err != nil {
		return err
	}
	f, err := d.updatePods(ctx, updates, pod, 2e9)
	if err != nil {
		return err
	}
	want := int64(f.Ops * perUpdate)
	if got, err := w.await(want, 2*time.Minute); err != nil || got != want {
		return fmt.Errorf("%s: %d of %d events arrived: %w", name, got, want, err)
	}
	after, err := d.s.usage()
	if err != nil {
		return err
	}
	sent := f.Ops
	f.Ops = int(want)
	f.used(before, after)
	f.Value = f.perOp()
	d.add(name, "µs CPU/event", f)
	d.add(name+", beside the updates", "µs CPU/event", besideUpdates(f, sent, alone))
	return nil
}

// rowWatchIdle has thousands of watchers on single pods, of which few get
// events: what they cost in memory, and an event in CPU. As clientv3 does, many
// watches share a stream.
func rowWatchIdle(ctx context.Context, d *dataset) error {
	const watchers, streams, eventful = 5000, 50, 100
	pod := func(i int) int { return i % eventful }
	alone, err := d.unwatched(ctx, d.few(4000), pod)
	if err != nil {
		return err
	}
	if err := d.s.settle(ctx); err != nil {
		return err
	}
	before, err := d.s.rss()
	if err != nil {
		return err
	}
	w, err := d.watchAll(ctx, streams, func(i int) (ranges []watchRange) {
		for n := range watchers / streams {
			ranges = append(ranges, watchRange{key: podKey((n*streams + i) % d.pods)})
		}
		return ranges
	}, nil)
	if err != nil {
		return err
	}
	defer w.close()
	after, err := d.s.rss()
	if err != nil {
		return err
	}
	use, err := d.s.usage()
	if err != nil {
		return err
	}
	f, err := d.updatePods(ctx, d.few(8000), pod, 3e9)
	if err != nil {
		return err
	}
	want := int64(f.Ops * max(1, watchers/d.pods))
	if got, err := w.await(want, time.Minute); err != nil || got < want {
		return fmt.Errorf("idle watchers: %d of %d events arrived: %w", got, want, err)
	}
	used, err := d.s.usage()
	if err != nil {
		return err
	}
	f.used(use, used)
	f.Value = f.perOp()
	d.add("watch, 5,000 mostly idle", "µs CPU/event", f)
	d.add("watch, 5,000 mostly idle, beside the updates", "µs CPU/event", besideUpdates(f, f.Ops, alone))
	d.add("watch, 5,000 mostly idle, RSS each", "kB", figures{Value: float64(after-before) / 1e3 / watchers, RSS: before, Peak: after})
	return nil
}
