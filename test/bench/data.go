package main

import (
	"context"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/measure"
)

// The data set is that of the design's table: pods and node leases.
const (
	connections = 4
	inFlight    = 64 // unless a row says otherwise
	podBytes    = 3000
	leaseBytes  = 400
	namespaces  = 50
	podPrefix   = "/registry/pods/"
	leasePrefix = "/registry/leases/kube-node-lease/"
	pageKeys    = 500
)

// dataset is what one server holds while the rows of a group run.
type dataset struct {
	s      *server
	rep    *report
	suffix string // of the names of the group's figures
	quick  bool
	pods   int
	leases int
	mod    []atomic.Int64 // mod revision of each pod
	beat   []atomic.Int64 // mod revision of each node lease
	rev    atomic.Int64   // a revision at least as new as every answer
}

func newDataset(s *server, rep *report, g group, o options) *dataset {
	d := &dataset{s: s, rep: rep, suffix: g.suffix, quick: o.quick, pods: g.pods, leases: g.leases}
	d.mod, d.beat = make([]atomic.Int64, d.pods), make([]atomic.Int64, d.leases)
	return d
}

// add records a figure of the server; what the group is goes into its name.
func (d *dataset) add(name, unit string, f figures) {
	d.rep.add(d.s.name, name+d.suffix, unit, f)
}

// few is n, or a fourth of it in a quick run.
func (d *dataset) few(n int) int {
	if d.quick {
		return n / 4
	}
	return n
}

// bytes is the size of the pods.
func (d *dataset) bytes() int64 { return int64(d.pods) * podBytes }

func podKey(i int) []byte { return fmt.Appendf(nil, "%sns-%02d/pod-%07d", podPrefix, i%namespaces, i) }

// otherKey is of objects that are none of the data set's.
func otherKey(resource string, i int) []byte {
	return fmt.Appendf(nil, "/registry/%s/ns-%02d/name-%07d", resource, i%namespaces, i)
}

func leaseKey(i int) []byte { return fmt.Appendf(nil, "%snode-%05d", leasePrefix, i) }

// payload and prefixEnd are those of all measurements.
var payload, prefixEnd = measure.Payload, measure.PrefixEnd

// create is an apiserver's create.
func (d *dataset) create(ctx context.Context, worker int, key, value []byte, mod *atomic.Int64) error {
	resp, err := d.s.kv(worker).Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, Key: key, TargetUnion: &pb.Compare_ModRevision{}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
	})
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("create of %s failed", key)
	}
	d.saw(resp.Header.Revision, mod)
	return nil
}

// update is an apiserver's guarded update. Two workers may meet on one object;
// the loser takes over the revision it is told, as an apiserver does.
func (d *dataset) update(ctx context.Context, worker int, key, value []byte, mod *atomic.Int64) error {
	for {
		resp, err := d.s.kv(worker).Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod.Load()}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
		})
		if err != nil {
			return err
		}
		if resp.Succeeded {
			d.saw(resp.Header.Revision, mod)
			return nil
		}
		kvs := resp.Responses[0].GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			return fmt.Errorf("update of %s: no such key", key)
		}
		mod.Store(kvs[0].ModRevision)
	}
}

// updatePod and heartbeat are updates of the data set's objects.
func (d *dataset) updatePod(ctx context.Context, worker, pod int, seed uint64) error {
	return d.update(ctx, worker, podKey(pod), payload(podBytes, seed), &d.mod[pod])
}

func (d *dataset) heartbeat(ctx context.Context, worker, i int) error {
	lease := i % d.leases
	return d.update(ctx, worker, leaseKey(lease), payload(leaseBytes, uint64(i)), &d.beat[lease])
}

func (d *dataset) saw(rev int64, mod *atomic.Int64) {
	mod.Store(rev)
	for {
		have := d.rev.Load()
		if rev <= have || d.rev.CompareAndSwap(have, rev) {
			return
		}
	}
}
