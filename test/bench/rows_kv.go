package main

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// kvSeconds bounds a row of single requests on a server that is slow.
const kvSeconds = 10

// rowCreate fills the data set: pods first, which are measured, then node
// leases.
func rowCreate(ctx context.Context, d *dataset) error {
	f, err := drive(ctx, d.s, inFlight, limit{ops: d.pods}, func(ctx context.Context, w, i int) error {
		return d.create(ctx, w, podKey(i), payload(podBytes, uint64(i)), &d.mod[i])
	})
	if err != nil {
		return err
	}
	f.Value = f.perOp()
	d.add("create", "µs CPU/op", f)
	if d.leases == 0 {
		return nil
	}
	_, err = drive(ctx, d.s, inFlight, limit{ops: d.leases}, func(ctx context.Context, w, i int) error {
		return d.create(ctx, w, leaseKey(i), payload(leaseBytes, uint64(i)), &d.beat[i])
	})
	return err
}

func rowUpdate(ctx context.Context, d *dataset) error {
	f, err := d.updates(ctx)
	d.add("update", "µs CPU/op", f)
	return err
}

// updates changes each pod once.
func (d *dataset) updates(ctx context.Context) (figures, error) {
	f, err := drive(ctx, d.s, inFlight, limit{ops: d.pods, seconds: kvSeconds}, func(ctx context.Context, w, i int) error {
		return d.updatePod(ctx, w, i*7919%d.pods, uint64(i)+1e9)
	})
	f.Value = f.perOp()
	return f, err
}

func rowGet(ctx context.Context, d *dataset) error {
	f, err := d.gets(ctx, inFlight, d.few(40_000))
	d.add("get", "µs CPU/op", f)
	return err
}

// gets reads single pods, linearizably.
func (d *dataset) gets(ctx context.Context, workers, ops int) (figures, error) {
	f, err := drive(ctx, d.s, workers, limit{ops: ops, seconds: kvSeconds}, func(ctx context.Context, w, i int) error {
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

func rowCount(ctx context.Context, d *dataset) error {
	f, err := drive(ctx, d.s, 16, limit{ops: d.few(60_000), seconds: 3}, func(ctx context.Context, w, _ int) error {
		resp, err := d.s.kv(w).Range(ctx, &pb.RangeRequest{Key: []byte(podPrefix), RangeEnd: prefixEnd(podPrefix), CountOnly: true})
		if err == nil && resp.Count != int64(d.pods) {
			err = fmt.Errorf("count: %d, want %d", resp.Count, d.pods)
		}
		return err
	})
	f.Value = f.perOp()
	d.add("count", "µs CPU/op", f)
	return err
}

// rowTiny fills the data set with keys of next to no value, many in one
// transaction: what matters is how many there are.
func rowTiny(ctx context.Context, d *dataset) error {
	const batch = 100
	f, err := drive(ctx, d.s, inFlight, limit{ops: d.pods / batch}, func(ctx context.Context, w, i int) error {
		txn := &pb.TxnRequest{}
		for n := range batch {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: podKey(i*batch + n), Value: []byte("tiny")}}})
		}
		_, err := d.s.kv(w).Txn(ctx, txn)
		return err
	})
	f.Value = f.perOp() / batch
	d.add("fill", "µs CPU/key", f)
	return err
}

// rowFill creates pods that other rows read; nothing is reported.
func rowFill(ctx context.Context, d *dataset) error {
	_, err := drive(ctx, d.s, inFlight, limit{ops: d.pods}, func(ctx context.Context, w, i int) error {
		return d.create(ctx, w, podKey(i), payload(podBytes, uint64(i)), &d.mod[i])
	})
	return err
}
