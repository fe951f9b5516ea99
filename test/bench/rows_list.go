package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// listSeconds bounds each half of a row of lists on a server that is slow.
const listSeconds = 6

// page reads one page of pods and answers the key to go on at.
func (d *dataset) page(ctx context.Context, w int, key []byte, rev int64) (*pb.RangeResponse, []byte, error) {
	resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: prefixEnd(podPrefix), Limit: pageKeys, Revision: rev})
	if err != nil {
		return nil, nil, err
	}
	if len(resp.Kvs) == 0 {
		return nil, nil, fmt.Errorf("page from %q at %d: empty", key, rev)
	}
	return resp, append(resp.Kvs[len(resp.Kvs)-1].Key, 0), nil
}

// rowPages lists all pods in pages of 500 on two workers: the first pages, of
// the head, and those behind them, at the first one's revision. A walk before
// is not counted: the floor makes its answers then.
func rowPages(ctx context.Context, d *dataset) error {
	if err := d.walk(ctx, 0); err != nil {
		return err
	}
	first, err := drive(ctx, d.s, 2, limit{ops: d.few(400), seconds: listSeconds}, func(ctx context.Context, w, _ int) error {
		_, _, err := d.page(ctx, w, []byte(podPrefix), 0)
		return err
	})
	if err != nil {
		return err
	}
	first.Bytes = int64(first.Ops) * pageKeys * podBytes
	first.Value = first.perMB()
	d.add("first page", "ms CPU/MB", first)

	// Each worker goes on where it is, and begins anew at the end, so that a
	// limit of time need not see the whole list.
	type place struct {
		key []byte
		rev int64
	}
	var places [2]place
	var got atomic.Int64
	later, err := drive(ctx, d.s, len(places), limit{ops: d.few(1600), seconds: listSeconds}, func(ctx context.Context, w, _ int) error {
		at := &places[w]
		if at.key == nil {
			resp, next, err := d.page(ctx, w, []byte(podPrefix), 0)
			if err != nil {
				return err
			}
			at.key, at.rev = next, resp.Header.Revision
			got.Add(int64(len(resp.Kvs)))
		}
		resp, next, err := d.page(ctx, w, at.key, at.rev)
		if err != nil {
			return err
		}
		at.key = next
		got.Add(int64(len(resp.Kvs)))
		if !resp.More {
			at.key = nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	later.Bytes = got.Load() * podBytes // the first page of each walk is in it
	later.Value = later.perMB()
	d.add("later pages", "ms CPU/MB", later)
	return nil
}

// walk lists all pods in pages and looks whether it got all of them.
func (d *dataset) walk(ctx context.Context, w int) error {
	got, key, rev := 0, []byte(podPrefix), int64(0)
	for {
		resp, next, err := d.page(ctx, w, key, rev)
		if err != nil {
			return err
		}
		got, key = got+len(resp.Kvs), next
		if rev == 0 {
			rev = resp.Header.Revision
		}
		if !resp.More {
			break
		}
	}
	if got != d.pods {
		return fmt.Errorf("pages: %d pods, want %d", got, d.pods)
	}
	return nil
}

// listPeak runs whole lists, four at a time, and adds their figure and by how
// much they raised the peak of the RSS. The CPU of a first one is not counted:
// the floor makes its answer then.
func (d *dataset) listPeak(ctx context.Context, name string, list func(ctx context.Context, w int) (int, error)) error {
	op := func(ctx context.Context, w, _ int) error {
		got, err := list(ctx, w)
		if err == nil && got != d.pods {
			err = fmt.Errorf("%s: %d pods, want %d", name, got, d.pods)
		}
		return err
	}
	if err := d.s.settle(ctx); err != nil {
		return err
	}
	before, err := d.s.rss()
	if err != nil {
		return err
	}
	if err := d.s.resetPeak(); err != nil {
		return err
	}
	if err := op(ctx, 0, 0); err != nil {
		return err
	}
	workers, rounds := 4, d.few(32)
	if d.pods > 50_000 { // the client holds what it lists, decoded
		workers, rounds = 1, 4
	}
	f, err := drive(ctx, d.s, workers, limit{ops: rounds, seconds: 2 * listSeconds}, op)
	if err != nil {
		return err
	}
	f.Bytes = int64(f.Ops) * d.bytes()
	f.Value = f.perMB()
	f.RSS = before
	if f.Peak, err = d.s.peak(); err != nil {
		return err
	}
	d.add(name, "ms CPU/MB", f)
	if d.s.name == "floor" {
		return nil // what it adds is the canned answer
	}
	d.add(name+", RSS it adds", "% of data", figures{Value: 100 * float64(f.Peak-before) / float64(d.bytes()), RSS: before, Peak: f.Peak})
	return nil
}

// rowList lists all pods in one answer.
func rowList(ctx context.Context, d *dataset) error {
	return d.listPeak(ctx, "list", func(ctx context.Context, w int) (int, error) {
		resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix)})
		return len(resp.GetKvs()), err
	})
}

// rowStream lists all pods with RangeStream.
func rowStream(ctx context.Context, d *dataset) error {
	return d.listPeak(ctx, "stream", func(ctx context.Context, w int) (int, error) {
		stream, err := d.s.kv(w).RangeStream(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix)})
		if err != nil {
			return 0, err
		}
		for got := 0; ; {
			resp, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return got, nil
			}
			if err != nil {
				return got, err
			}
			got += len(resp.RangeResponse.GetKvs())
		}
	})
}
