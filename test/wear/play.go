package main

import (
	"container/heap"
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// speedMax is how much faster than the clock an hour is played at most.
const speedMax = 200

// server is what is worn.
type server interface {
	Txn(context.Context, *pb.TxnRequest) (revision int64, succeeded bool, err error)
	Grant(context.Context, *pb.LeaseGrantRequest) error
	Revoke(context.Context, *pb.LeaseRevokeRequest) error
	Compact(context.Context, *pb.CompactionRequest) error
	// Passed is told the time in the hour, which never goes back.
	Passed(time.Duration) error
	// Settle ends what filling it has begun.
	Settle() error
	// Used is what was written since the process began: bytes, and calls of fdatasync.
	Used() (used, error)
	Close() error
}

// used is what a server did to its disk.
type used struct{ bytes, syncs int64 }

// player makes the writes of a cluster.
type player struct {
	ctx    context.Context
	server server
	world  *world

	revisions map[string]int64 // of keys, by their last write
	version   int64            // of compact_rev_key
	revision  int64            // the last
	compactAt int64            // the revision of five minutes ago

	leases      int64
	eventLease  int64
	masterLease int64
	now         time.Duration
	revoked     writers // to come, each once

	rows  int
	bytes int64 // of the keys and values of all writes
}

// fill writes what the cluster is made of.
func (p *player) fill(nodes int) error {
	for i := range nodes {
		for pod := range podsPerNode {
			pod += i * podsPerNode
			if err := p.update("/registry/pods/default/"+podName(pod), p.world.pod(pod), 0); err != nil {
				return err
			}
		}
		if err := p.update(nodeKey(i), p.world.node(i, 0), 0); err != nil {
			return err
		}
		if err := p.update(nodeLeaseKey(i), p.world.nodeLease(i, 0), 0); err != nil {
			return err
		}
	}
	return p.server.Settle()
}

// play goes through so much of the hour.
func (p *player) play(nodes int, length time.Duration) error {
	all, began := cluster(nodes), time.Now()
	for {
		w := (*all)[0]
		p.now = w.next
		if p.now >= length {
			return p.server.Passed(length)
		}
		time.Sleep(time.Until(began.Add(p.now / speedMax)))
		for len(p.revoked) > 0 && p.revoked[0].next <= p.now {
			if err := p.revoked[0].write(p); err != nil {
				return err
			}
			p.revoked = p.revoked[1:]
		}
		if err := p.server.Passed(p.now); err != nil {
			return err
		}
		if err := w.write(p); err != nil {
			return fmt.Errorf("at %v: %w", p.now, err)
		}
		w.next += w.every
		heap.Fix(all, 0)
	}
}

// update is the guarded update of an API server.
func (p *player) update(key string, v []byte, lease int64) error {
	revision, ok, err := p.server.Txn(p.ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: []byte(key), TargetUnion: &pb.Compare_ModRevision{ModRevision: p.revisions[key]}}},
		Success: []*pb.RequestOp{put(key, v, lease)},
		Failure: []*pb.RequestOp{get(key)},
	})
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("an update of %s did not find revision %d", key, p.revisions[key])
	}
	p.wrote(key, v)
	p.revision, p.revisions[key] = revision, revision
	return nil
}

func (p *player) wrote(key string, v []byte) {
	p.rows++
	p.bytes += int64(len(key) + len(v))
}

func (p *player) grant(ttl time.Duration) (int64, error) {
	p.leases++
	// The clocks of the servers do not expire it.
	return p.leases, p.server.Grant(p.ctx, &pb.LeaseGrantRequest{ID: p.leases, TTL: int64(max(ttl, 24*time.Hour).Seconds())})
}

func (p *player) grantForEvents() (err error) {
	p.eventLease, err = p.grant(eventTTL)
	return err
}

// renewMaster is an API server that says it is there: with a new lease each time.
func (p *player) renewMaster() error {
	lease, err := p.grant(masterTTL)
	if err != nil {
		return err
	}
	p.revoked = append(p.revoked, &writer{next: p.now + masterTTL, write: func(p *player) error {
		return p.server.Revoke(p.ctx, &pb.LeaseRevokeRequest{ID: lease})
	}})
	return p.update("/registry/masterleases/10.0.0.1", p.world.masterLease(), lease)
}

// compact is an API server's: it notes the revision of now, and compacts to the one noted before.
func (p *player) compact() error {
	const key = "compact_rev_key"
	at := p.compactAt
	p.compactAt = p.revision
	v := fmt.Append(nil, at)
	revision, ok, err := p.server.Txn(p.ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_VERSION, Key: []byte(key), TargetUnion: &pb.Compare_Version{Version: p.version}}},
		Success: []*pb.RequestOp{put(key, v, 0)},
		Failure: []*pb.RequestOp{get(key)},
	})
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s is not at version %d", key, p.version)
	}
	p.version++
	p.revision = revision
	p.wrote(key, v)
	if at == 0 {
		return nil
	}
	return p.server.Compact(p.ctx, &pb.CompactionRequest{Revision: at})
}

func put(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}}}
}

func get(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}
