package raftstore

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// SlowApply: applying one entry took longer than Config.SlowApply. Request and Result are valid while OnEvent runs.
type SlowApply struct {
	Took    time.Duration
	ID      uint64 // of the request; 0: it has none
	Request *pb.InternalRaftRequest
	Result  mvcc.Result
}

func (e SlowApply) String() string { return "apply request took too long" }

// RequestText is the request without values, as etcd writes it into its log. Here the ID is not in a header.
func (e SlowApply) RequestText() string {
	text := (&pb.InternalRaftStringer{Request: e.Request}).String()
	return strings.Replace(text, "header:<"+(*pb.RequestHeader)(nil).String()+">", fmt.Sprintf("header:<ID:%d>", e.ID), 1)
}

// ResponseText is the size of the answer in bytes as "size:17", or "" if there is none.
func (e SlowApply) ResponseText() string {
	if n := responseSize(e.Result); n >= 0 {
		return fmt.Sprintf("size:%d", n)
	}
	return ""
}

// SlowFsync: an fsync of the log took longer than slowFsync.
type SlowFsync struct{ Took, Expected time.Duration }

func (e SlowFsync) String() string { return "slow fdatasync" }

// SlowReadIndex: the leader has not confirmed for so long that it leads; it is asked again.
type SlowReadIndex struct {
	Request uint64 // the last one sent
	Retry   time.Duration
}

func (e SlowReadIndex) String() string {
	return "waiting for ReadIndex response took too long, retrying"
}

// took takes the time of the last entry. The clock is read once for each: the end of one is the beginning of the next.
func (a *applier) took(id uint64, res mvcc.Result, took time.Duration) {
	if a.request == nil {
		return
	}
	a.s.metrics.applies.observe(a.request, res.Err, took)
	if took > a.s.cfg.SlowApply {
		a.s.metrics.slowApplies.Inc()
		a.s.cfg.OnEvent(SlowApply{Took: took, ID: id, Request: a.request, Result: res})
	}
}

// CountSlowRead counts a read that took longer than SlowApply: etcd has one counter for both.
func (s *Store) CountSlowRead() { s.metrics.slowApplies.Inc() }

// fsynced takes the time of an fsync of the log.
func (s *Store) fsynced(took time.Duration) {
	s.metrics.fsynced(took)
	if took > slowFsync {
		s.cfg.OnEvent(SlowFsync{Took: took, Expected: slowFsync})
	}
}

// Field numbers of the answers; a header at this point has the revision only, as its field 3.
const (
	fieldHeader protowire.Number = 1
	fieldSecond protowire.Number = 2
	fieldThird  protowire.Number = 3
	fieldFourth protowire.Number = 4
)

// responseSize is how many bytes etcd's answer would take where it is made, before its header is filled in; -1: it has none.
func responseSize(res mvcc.Result) int {
	rev := res.Revision
	switch r := res.Response.(type) {
	case *mvcc.PutResult:
		return putSize(r, rev)
	case *mvcc.DeleteResult:
		return deleteSize(r, rev)
	case *mvcc.TxnResult:
		return txnSize(r, rev)
	case *mvcc.RangeResult:
		return rangeSize(r, rev)
	case *mvcc.CompactResult:
		return headerSize(rev)
	case *mvcc.LeaseGrantResult:
		return headerSize(rev) + uintSize(fieldSecond, uint64(r.ID)) + uintSize(fieldThird, uint64(r.TTL))
	case *mvcc.LeaseRevokeResult:
		return headerSize(rev)
	}
	return -1
}

func headerSize(rev mvcc.Revision) int {
	return bytesSize(fieldHeader, uintSize(fieldThird, uint64(rev)))
}

func putSize(r *mvcc.PutResult, rev mvcc.Revision) int {
	n := headerSize(rev)
	if r.Prev != nil {
		n += bytesSize(fieldSecond, r.Prev.Size())
	}
	return n
}

func deleteSize(r *mvcc.DeleteResult, rev mvcc.Revision) int {
	n := headerSize(rev) + uintSize(fieldSecond, uint64(r.Deleted))
	for _, v := range r.Prev {
		n += bytesSize(fieldThird, v.Size())
	}
	return n
}

func rangeSize(r *mvcc.RangeResult, rev mvcc.Revision) int {
	n := headerSize(rev) + uintSize(fieldFourth, uint64(r.Count))
	for _, v := range r.Versions {
		if r.KeysOnly {
			n += bytesSize(fieldSecond, len(v.KeyOnlyKV(r.KeysLease)))
		} else {
			n += bytesSize(fieldSecond, v.Size())
		}
	}
	if r.More {
		n += uintSize(fieldThird, 1)
	}
	return n
}

func txnSize(r *mvcc.TxnResult, rev mvcc.Revision) int {
	n := headerSize(rev)
	if r.Succeeded {
		n += uintSize(fieldSecond, 1)
	}
	for i := range r.Ops {
		op, size, num := &r.Ops[i], 0, protowire.Number(0)
		switch {
		case op.Range != nil:
			num, size = 1, rangeSize(op.Range, op.Revision)
		case op.Put != nil:
			num, size = 2, putSize(op.Put, op.Revision)
		case op.Delete != nil:
			num, size = 3, deleteSize(op.Delete, op.Revision)
		case op.Txn != nil:
			num, size = 4, txnSize(op.Txn, op.Revision)
		}
		n += bytesSize(fieldThird, bytesSize(num, size))
	}
	return n
}

func bytesSize(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func uintSize(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

// applyBuckets is the number of bounds of etcd's histogram, from applyBucketMin doubling.
const (
	applyBuckets   = 20
	applyBucketMin = 100 * time.Microsecond
)

// applyTimes is the histogram of how long entries take, by what they ask for. Only who applies adds to it, and scrapes read it.
type applyTimes struct {
	desc *prometheus.Desc
	ops  [2][len(applyOps)]applyTime // failed, succeeded
}

type applyTime struct {
	buckets [applyBuckets + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// applyOps are etcd's names for what entries ask for, in the order of opOf.
var applyOps = [...]string{"unknown", "Put", "DeleteRange", "Txn", "Compaction", "LeaseGrant", "LeaseRevoke", "LeaseCheckpoint", "Alarm",
	"ClusterVersionSet", "ClusterMemberAttrSet", "DowngradeInfoSet", "Range",
	"Authenticate", "AuthEnable", "AuthDisable", "AuthUserAdd", "AuthUserDelete",
	"AuthUserChangePassword", "AuthUserGrantRole", "AuthUserGet", "AuthUserRevokeRole", "AuthRoleAdd",
	"AuthRoleGrantPermission", "AuthRoleGet", "AuthRoleRevokePermission", "AuthRoleDelete", "AuthUserList", "AuthRoleList"}

func opOf(r *pb.InternalRaftRequest) int {
	switch {
	case r.Put != nil:
		return 1
	case r.DeleteRange != nil:
		return 2
	case r.Txn != nil:
		return 3
	case r.Compaction != nil:
		return 4
	case r.LeaseGrant != nil:
		return 5
	case r.LeaseRevoke != nil:
		return 6
	case r.LeaseCheckpoint != nil:
		return 7
	case r.Alarm != nil:
		return 8
	case r.ClusterVersionSet != nil:
		return 9
	case r.ClusterMemberAttrSet != nil:
		return 10
	case r.DowngradeInfoSet != nil:
		return 11
	case r.Range != nil:
		return 12
	}
	return authOpOf(r)
}

func authOpOf(r *pb.InternalRaftRequest) int {
	for i, asked := range [...]bool{r.Authenticate != nil, r.AuthEnable != nil, r.AuthDisable != nil, r.AuthUserAdd != nil, r.AuthUserDelete != nil, r.AuthUserChangePassword != nil, r.AuthUserGrantRole != nil, r.AuthUserGet != nil,
		r.AuthUserRevokeRole != nil, r.AuthRoleAdd != nil, r.AuthRoleGrantPermission != nil, r.AuthRoleGet != nil, r.AuthRoleRevokePermission != nil, r.AuthRoleDelete != nil, r.AuthUserList != nil, r.AuthRoleList != nil} {
		if asked {
			return 13 + i
		}
	}
	return 0
}

func (t *applyTimes) observe(r *pb.InternalRaftRequest, err error, took time.Duration) {
	op := &t.ops[boolInt(err == nil || errors.Is(err, mvcc.ErrCompacted))][opOf(r)]
	at := bits.Len64(uint64(max(took-1, 0) / applyBucketMin))
	op.buckets[min(at, applyBuckets)].Add(1)
	op.sum.Add(int64(took))
}

// Describe implements prometheus.Collector.
func (t *applyTimes) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *applyTimes) Collect(ch chan<- prometheus.Metric) {
	for ok, success := range [...]string{"false", "true"} {
		for i := range t.ops[ok] {
			op := &t.ops[ok][i]
			count, buckets := uint64(0), make(map[float64]uint64, applyBuckets)
			for b := range applyBuckets {
				count += op.buckets[b].Load()
				buckets[(applyBucketMin << b).Seconds()] = count
			}
			if count += op.buckets[applyBuckets].Load(); count > 0 {
				ch <- prometheus.MustNewConstHistogram(t.desc, count, time.Duration(op.sum.Load()).Seconds(), buckets, "v3", applyOps[i], success)
			}
		}
	}
}
