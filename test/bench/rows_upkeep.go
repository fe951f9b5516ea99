package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	deadVersions = 80_000
	// upkeepRate is how many heartbeats a second go on beside the work.
	upkeepRate = 500
)

// beside measures work while heartbeats go on at a steady rate, after the same
// rate without the work; until a second after the work's answer, as some of it
// may go on behind it. CPU is what the heartbeats do not account for.
func (d *dataset) beside(ctx context.Context, work func() error) (figures, error) {
	const behind = time.Second
	quietFor := 4 * time.Second
	if d.quick {
		quietFor = 2 * time.Second
	}
	quiet, err := openLoop(ctx, d.s, upkeepRate, closeAfter(quietFor), d.heartbeat)
	if err != nil {
		return figures{}, err
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	var took time.Duration
	go func() {
		defer close(stop)
		begin := time.Now()
		err := work()
		took = time.Since(begin)
		time.Sleep(behind)
		done <- err
	}()
	f, err := openLoop(ctx, d.s, upkeepRate, stop, d.heartbeat)
	err = errors.Join(err, <-done)
	f.Before = quiet.P99
	f.CPU -= time.Duration(float64(quiet.CPU) / float64(quiet.Ops) * float64(f.Ops))
	f.Note = fmt.Sprintf("answered after %.0f ms; writes before it: p99 %.2f ms, max %.2f ms",
		took.Seconds()*1e3, quiet.P99.Seconds()*1e3, quiet.Max.Seconds()*1e3)
	return f, err
}

// rowCompact makes dead versions and compacts them away physically: the CPU of
// it, and what writes see of it.
func rowCompact(ctx context.Context, d *dataset) error {
	made, err := drive(ctx, d.s, inFlight, limit{ops: d.few(deadVersions), seconds: 2 * kvSeconds}, d.heartbeat)
	if err != nil {
		return err
	}
	if err := d.s.settle(ctx); err != nil {
		return err
	}
	f, err := d.beside(ctx, func() error {
		_, err := d.s.kv(1).Compact(ctx, &pb.CompactionRequest{Revision: d.rev.Load(), Physical: true})
		return err
	})
	if err != nil {
		return err
	}
	f.Value = f.CPU.Seconds() * 1e3
	f.Note = fmt.Sprintf("%d dead versions; %s", made.Ops, f.Note)
	d.add("compaction", "ms CPU", f)
	d.add("compaction, write p99", "ms", figures{Value: f.P99.Seconds() * 1e3, Before: f.Before, Max: f.Max})
	return nil
}

// rowDefrag measures the longest stall of a writer during a defragmentation.
func rowDefrag(ctx context.Context, d *dataset) error {
	f, err := d.beside(ctx, func() error {
		_, err := pb.NewMaintenanceClient(d.s.conn[1]).Defragment(ctx, &pb.DefragmentRequest{})
		return err
	})
	if err != nil {
		return err
	}
	f.Value = f.Max.Seconds() * 1e3
	d.add("defragmentation, longest stall", "ms", f)
	return nil
}

// rowRestart kills the server and measures the time to its first answer.
func rowRestart(ctx context.Context, d *dataset) error {
	d.s.kill()
	took, err := d.s.start()
	if err != nil {
		return err
	}
	resp, err := d.s.kv(0).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix), CountOnly: true})
	if err != nil {
		return err
	}
	if resp.Count != int64(d.pods) {
		return fmt.Errorf("after kill -9: %d pods, want %d", resp.Count, d.pods)
	}
	u, err := d.s.usage()
	if err != nil {
		return err
	}
	d.add("restart", "ms to first answer", figures{Ops: 1, Seconds: took.Seconds(), Max: took, CPU: u.CPU, Value: took.Seconds() * 1e3})
	return nil
}

// rowMemory is what the server holds once the load has settled, over the bytes
// of keys and values.
func rowMemory(ctx context.Context, d *dataset) error {
	rss, err := d.s.rss()
	if err != nil {
		return err
	}
	data := d.bytes() + int64(d.pods*len(podKey(0))) + int64(d.leases*(leaseBytes+len(leaseKey(0))))
	d.add("memory", "x data", figures{Value: float64(rss) / float64(data), RSS: rss, Bytes: data})
	return nil
}

// rowDisk is what the data dir takes on disk.
func rowDisk(_ context.Context, d *dataset) error {
	n, err := d.s.disk()
	d.add("disk", "MB", figures{Value: float64(n) / 1e6, Bytes: d.bytes()})
	return err
}
