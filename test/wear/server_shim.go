package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/test/internal/member"
)

// tickEvery is how often a store that leads alone looks at the time.
const tickEvery = 500 * time.Millisecond

// shimServer is shim's store in this process, with the hour's clock.
type shimServer struct {
	store   *raftstore.Store
	metrics *prometheus.Registry
	now     atomic.Int64 // nanoseconds
	ticks   chan time.Time
	ticked  time.Duration
}

func startShim(dir string, verbose bool) (server, error) {
	s := &shimServer{metrics: prometheus.NewRegistry(), ticks: make(chan time.Time)}
	s.now.Store(time.Now().UnixNano())
	cfg := raftstore.Config{DataDir: filepath.Join(dir, "shim"), Registerer: s.metrics, Ticks: s.ticks,
		Now: func() time.Time { return time.Unix(0, s.now.Load()) }}
	if verbose {
		cfg.OnEvent = func(e raftstore.Event) { fmt.Fprintf(os.Stderr, "%v shim: %v\n", s.ticked, e) }
	}
	var err error
	s.store, err = raftstore.Open(cfg)
	return s, err
}

func (s *shimServer) propose(ctx context.Context, kind mvcc.Kind, r *pb.InternalRaftRequest) (mvcc.Result, error) {
	res, err := s.store.Propose(ctx, raftstore.Command{Kind: kind, Request: r})
	if err == nil {
		err = res.Err
	}
	return res, err
}

func (s *shimServer) Txn(ctx context.Context, r *pb.TxnRequest) (int64, bool, error) {
	res, err := s.propose(ctx, mvcc.KindTxn, &pb.InternalRaftRequest{Txn: r})
	if err != nil {
		return 0, false, err
	}
	return int64(res.Revision), res.Response.(*mvcc.TxnResult).Succeeded, nil
}

func (s *shimServer) Grant(ctx context.Context, r *pb.LeaseGrantRequest) error {
	_, err := s.propose(ctx, mvcc.KindLeaseGrant, &pb.InternalRaftRequest{LeaseGrant: r})
	return err
}

func (s *shimServer) Revoke(ctx context.Context, r *pb.LeaseRevokeRequest) error {
	_, err := s.propose(ctx, mvcc.KindLeaseRevoke, &pb.InternalRaftRequest{LeaseRevoke: r})
	return err
}

func (s *shimServer) Compact(ctx context.Context, r *pb.CompactionRequest) error {
	_, err := s.propose(ctx, mvcc.KindCompaction, &pb.InternalRaftRequest{Compaction: r})
	return err
}

func (s *shimServer) Passed(now time.Duration) error {
	for s.ticked+tickEvery <= now {
		s.ticked += tickEvery
		s.now.Add(int64(tickEvery))
		s.ticks <- time.Time{}
	}
	return s.store.Err()
}

func (s *shimServer) Settle() error { return s.store.Checkpoint(context.Background()) }

func (s *shimServer) Used() (used, error) {
	bytes, err := member.Written(os.Getpid())
	if err != nil {
		return used{}, err
	}
	families, err := s.metrics.Gather()
	if err != nil {
		return used{}, err
	}
	counts := make(map[string]float64)
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			counts[f.GetName()] = float64(h.GetSampleCount())
		}
	}
	return used{bytes, syncsOf(func(name string) float64 { return counts[name] })}, nil
}

func (s *shimServer) Close() error { return s.store.Close() }

// syncsOf counts calls of fdatasync: one for each batch of the log, two for each commit of bbolt.
func syncsOf(count func(name string) float64) int64 {
	return int64(count("etcd_disk_wal_fsync_duration_seconds") + 2*count("etcd_disk_backend_commit_duration_seconds"))
}
