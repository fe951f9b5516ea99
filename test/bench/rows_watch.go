package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rowWatch fans updates of pods out to 200 watchers of all pods, with prev_kv
// as apiservers ask for it; the figure is CPU per delivered event, with the
// cost of the updates themselves in it, as in the design's table.
func rowWatch(ctx context.Context, d *dataset) (figures, error) {
	const watchers, updates = 200, 1500
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var seen atomic.Int64
	var wg sync.WaitGroup
	defer func() { cancel(nil); wg.Wait() }()
	all := make(chan struct{})
	for i := range watchers {
		stream, err := pb.NewWatchClient(d.s.conn[i%connections]).Watch(ctx)
		if err != nil {
			return figures{}, err
		}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix), StartRevision: d.rev.Load() + 1, PrevKv: true,
		}}}); err != nil {
			return figures{}, err
		}
		if resp, err := stream.Recv(); err != nil || !resp.Created {
			return figures{}, fmt.Errorf("create watch: %v %w", resp, err)
		}
		wg.Go(func() {
			for {
				resp, err := stream.Recv()
				if err != nil {
					return
				}
				if resp.Canceled {
					cancel(fmt.Errorf("watch cancelled: %s", resp.CancelReason))
					return
				}
				if seen.Add(int64(len(resp.Events))) == watchers*updates {
					close(all)
				}
			}
		})
	}
	cpu, err := d.s.cpu()
	if err != nil {
		return figures{}, err
	}
	begin := time.Now()
	f, err := drive(ctx, d.s, 8, updates, func(ctx context.Context, w, i int) error {
		return d.update(ctx, w, podKey(i%d.pods), payload(podBytes, uint64(i)+2e9), &d.mod[i%d.pods])
	})
	if err != nil {
		return f, err
	}
	select {
	case <-all:
	case <-ctx.Done():
		return f, context.Cause(ctx)
	case <-time.After(2 * time.Minute):
		return f, fmt.Errorf("watch: %d of %d events arrived", seen.Load(), watchers*updates)
	}
	after, err := d.s.cpu()
	f.CPU, f.Seconds, f.Ops = after-cpu, time.Since(begin).Seconds(), watchers*updates
	f.Rate = float64(f.Ops) / f.Seconds
	f.Value = f.perOp()
	return f, err
}
