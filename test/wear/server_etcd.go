package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/member"
	"github.com/kubeshim/shim/test/internal/peers"
)

// etcdBatch is etcd's default --backend-batch-interval.
const etcdBatch = 100 * time.Millisecond

// etcdServer is a process of etcd's.
type etcdServer struct {
	m     *member.Member
	kv    pb.KVClient
	lease pb.LeaseClient
}

// startEtcd has it commit as often as it would at so many rows a second.
func startEtcd(dir string, perSecond float64) (server, error) {
	path, err := peers.Build("etcd")
	if err != nil {
		return nil, err
	}
	m, err := member.New("etcd", path, dir)
	if err != nil {
		return nil, err
	}
	m.Etcd(m)
	limit := int(math.Ceil(perSecond * etcdBatch.Seconds()))
	m.Args = append(m.Args, "--backend-batch-interval=1h", "--backend-batch-limit="+strconv.Itoa(limit), "--log-level=error",
		"--quota-backend-bytes="+strconv.Itoa(8<<30))
	if err := m.Launch(); err != nil {
		return nil, err
	}
	if err := m.Connect(1); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, m.Log())
	}
	return &etcdServer{m: m, kv: pb.NewKVClient(m.Conn[0]), lease: pb.NewLeaseClient(m.Conn[0])}, nil
}

func (s *etcdServer) Txn(ctx context.Context, r *pb.TxnRequest) (int64, bool, error) {
	resp, err := s.kv.Txn(ctx, r)
	return resp.GetHeader().GetRevision(), resp.GetSucceeded(), err
}

func (s *etcdServer) Grant(ctx context.Context, r *pb.LeaseGrantRequest) error {
	_, err := s.lease.LeaseGrant(ctx, r)
	return err
}

func (s *etcdServer) Revoke(ctx context.Context, r *pb.LeaseRevokeRequest) error {
	_, err := s.lease.LeaseRevoke(ctx, r)
	return err
}

func (s *etcdServer) Compact(ctx context.Context, r *pb.CompactionRequest) error {
	_, err := s.kv.Compact(ctx, r)
	return err
}

func (s *etcdServer) Passed(time.Duration) error { return nil }

func (s *etcdServer) Settle() error { return nil }

func (s *etcdServer) Used() (used, error) {
	bytes, err := member.Written(s.m.PID())
	if err != nil {
		return used{}, err
	}
	resp, err := http.Get("http://" + s.m.Client + "/metrics")
	if err != nil {
		return used{}, err
	}
	defer resp.Body.Close()
	counts := make(map[string]float64)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name, ok := strings.CutSuffix(name, "_count"); ok {
			if counts[name], err = strconv.ParseFloat(value, 64); err != nil {
				return used{}, err
			}
		}
	}
	return used{bytes, syncsOf(func(name string) float64 { return counts[name] })}, nil
}

func (s *etcdServer) Close() error {
	s.m.End(syscall.SIGKILL)
	return nil
}
