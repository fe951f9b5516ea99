package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const deadVersions = 78_000

// writeBeside runs work while one client updates node leases one after the
// other, and returns the latencies of those updates.
func writeBeside(ctx context.Context, d *dataset, work func() error) (took []time.Duration, err error) {
	done := make(chan error, 1)
	go func() { done <- work() }()
	for i := 0; ; i++ {
		select {
		case err = <-done:
			return took, err
		default:
		}
		at := time.Now()
		if err := d.update(ctx, 0, leaseKey(i%d.leases), payload(leaseBytes, uint64(i)), &d.beat[i%d.leases]); err != nil {
			return took, errors.Join(err, <-done)
		}
		took = append(took, time.Since(at))
	}
}

// rowCompact makes dead versions, compacts them away physically and measures
// the CPU of it and the latency of writes meanwhile.
func rowCompact(ctx context.Context, d *dataset) (figures, error) {
	_, err := drive(ctx, d.s, inFlight, deadVersions, func(ctx context.Context, w, i int) error {
		return d.update(ctx, w, leaseKey(i%d.leases), payload(leaseBytes, uint64(i)), &d.beat[i%d.leases])
	})
	if err != nil {
		return figures{}, err
	}
	cpu, err := d.s.cpu()
	if err != nil {
		return figures{}, err
	}
	written, err := d.s.written()
	if err != nil {
		return figures{}, err
	}
	begin := time.Now()
	took, err := writeBeside(ctx, d, func() error {
		_, err := d.s.kv(1).Compact(ctx, &pb.CompactionRequest{Revision: d.rev.Load(), Physical: true})
		return err
	})
	if err != nil || len(took) == 0 {
		return figures{}, errors.Join(err, orNothing(took))
	}
	f, err := finish(d.s, took, time.Since(begin), cpu, written)
	f.Value = f.CPU.Seconds() * 1e3
	return f, err
}

// rowDefrag measures the longest stall of a writer during a defragmentation.
func rowDefrag(ctx context.Context, d *dataset) (figures, error) {
	cpu, err := d.s.cpu()
	if err != nil {
		return figures{}, err
	}
	begin := time.Now()
	took, err := writeBeside(ctx, d, func() error {
		_, err := pb.NewMaintenanceClient(d.s.conn[1]).Defragment(ctx, &pb.DefragmentRequest{})
		return err
	})
	if err != nil || len(took) == 0 {
		return figures{}, errors.Join(err, orNothing(took))
	}
	written, err := d.s.written()
	if err != nil {
		return figures{}, err
	}
	f, err := finish(d.s, took, time.Since(begin), cpu, written)
	f.Value = float64(slices.Max(took).Microseconds()) / 1e3
	return f, err
}

func orNothing(took []time.Duration) error {
	if len(took) == 0 {
		return errors.New("the work was over before one write was")
	}
	return nil
}

// rowIdle is a quiet cluster: 20 heartbeats a second for ten seconds. The
// figure is CPU milliseconds per second.
func rowIdle(ctx context.Context, d *dataset) (figures, error) {
	const beats = 200
	cpu, err := d.s.cpu()
	if err != nil {
		return figures{}, err
	}
	written, err := d.s.written()
	if err != nil {
		return figures{}, err
	}
	begin := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	for i := range beats {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return figures{}, ctx.Err()
		}
		at := time.Now()
		if err := d.update(ctx, i, leaseKey(i%d.leases), payload(leaseBytes, uint64(i)), &d.beat[i%d.leases]); err != nil {
			return figures{}, err
		}
		took = append(took, time.Since(at))
	}
	f, err := finish(d.s, took, time.Since(begin), cpu, written)
	f.Value = f.CPU.Seconds() * 1e3 / f.Seconds
	return f, err
}

// rowRestart kills the server and measures the time to its first answer.
func rowRestart(ctx context.Context, d *dataset) (figures, error) {
	d.s.kill()
	took, err := d.s.start()
	if err != nil {
		return figures{}, err
	}
	resp, err := d.s.kv(0).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix), CountOnly: true})
	if err != nil {
		return figures{}, err
	}
	if resp.Count != int64(d.pods) {
		return figures{}, fmt.Errorf("after kill -9: %d pods, want %d", resp.Count, d.pods)
	}
	cpu, err := d.s.cpu()
	return figures{Ops: 1, Seconds: took.Seconds(), Max: took, CPU: cpu, Value: took.Seconds() * 1e3}, err
}
