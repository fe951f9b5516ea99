package main

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// create fills the data set: pods first, which are measured, then node leases.
func rowCreate(ctx context.Context, d *dataset) (figures, error) {
	f, err := drive(ctx, d.s, inFlight, d.pods, func(ctx context.Context, w, i int) error {
		return d.create(ctx, w, podKey(i), payload(podBytes, uint64(i)), &d.mod[i])
	})
	if err != nil {
		return f, err
	}
	f.Value = f.perOp()
	_, err = drive(ctx, d.s, inFlight, d.leases, func(ctx context.Context, w, i int) error {
		return d.create(ctx, w, leaseKey(i), payload(leaseBytes, uint64(i)), &d.beat[i])
	})
	return f, err
}

func rowUpdate(ctx context.Context, d *dataset) (figures, error) {
	f, err := drive(ctx, d.s, inFlight, d.pods, func(ctx context.Context, w, i int) error {
		i = i * 7919 % d.pods
		return d.update(ctx, w, podKey(i), payload(podBytes, uint64(i)+1e9), &d.mod[i])
	})
	f.Value = f.perOp()
	return f, err
}

func rowGet(ctx context.Context, d *dataset) (figures, error) {
	f, err := drive(ctx, d.s, inFlight, 30_000, func(ctx context.Context, w, i int) error {
		key := podKey(i * 7919 % d.pods)
		resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: key, Limit: 1})
		if err == nil && len(resp.Kvs) != 1 {
			err = fmt.Errorf("get of %s: %d keys", key, len(resp.Kvs))
		}
		return err
	})
	f.Value = f.perOp()
	return f, err
}

func rowCount(ctx context.Context, d *dataset) (figures, error) {
	ops := 5_000
	if d.s.name == "etcd" || d.s.name == "kine" {
		ops = 300
	}
	f, err := drive(ctx, d.s, 16, ops, func(ctx context.Context, w, _ int) error {
		resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix), CountOnly: true})
		if err == nil && resp.Count != int64(d.pods) {
			err = fmt.Errorf("count: %d, want %d", resp.Count, d.pods)
		}
		return err
	})
	f.Value = f.perOp()
	return f, err
}

// rowPages lists all pods in pages of 500 at the revision of the first page,
// several times over, on two workers.
func rowPages(ctx context.Context, d *dataset) (figures, error) {
	rounds := max(4, 120_000/d.pods)
	f, err := drive(ctx, d.s, 2, rounds, func(ctx context.Context, w, _ int) error {
		got, key, rev := 0, []byte(podPrefix), int64(0)
		for {
			resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: prefixEnd(podPrefix), Limit: pageKeys, Revision: rev})
			if err != nil {
				return err
			}
			got += len(resp.Kvs)
			if !resp.More {
				break
			}
			if rev == 0 {
				rev = resp.Header.Revision
			}
			key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
		}
		if got != d.pods {
			return fmt.Errorf("pages: %d pods, want %d", got, d.pods)
		}
		return nil
	})
	f.Bytes = int64(rounds) * int64(d.pods) * podBytes
	f.Value = f.perMB()
	return f, err
}

// rowList lists all pods in one answer, four at a time.
func rowList(ctx context.Context, d *dataset) (figures, error) {
	if err := d.s.resetPeak(); err != nil {
		return figures{}, err
	}
	const rounds = 12
	f, err := drive(ctx, d.s, 4, rounds, func(ctx context.Context, w, _ int) error {
		resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix)})
		if err == nil && len(resp.Kvs) != d.pods {
			err = fmt.Errorf("list: %d pods, want %d", len(resp.Kvs), d.pods)
		}
		return err
	})
	if err != nil {
		return f, err
	}
	f.Bytes = rounds * int64(d.pods) * podBytes
	f.Value = f.perMB()
	f.Peak, err = d.s.peak()
	return f, err
}
