package raftstore

import "github.com/kubeshim/shim/pkg/raftstore/mvcc"

// Status is a description of this member at one moment. Each field is right by itself; together they are no snapshot.
type Status struct {
	MemberID, ClusterID uint64
	Leader              uint64 // 0: none
	Term                uint64
	Committed, Applied  uint64
	Revision            mvcc.Revision
	DBSize              int64 // bytes of the bbolt file, never 0
	DBSizeInUse         int64 // bytes of its pages in use
	QuotaBytes          int64 // below 0: none
	IsLearner           bool
	ClusterVersion      string   // "3.7.0"
	StorageVersion      string   // "3.7.0"
	Errors              []string // no leader, alarms, a full disk
	Downgrade           DowngradeInfo
}

// DowngradeInfo is what Maintenance.Status reports about a cluster downgrade.
type DowngradeInfo struct {
	TargetVersion string `json:"target-version"`
	Enabled       bool   `json:"enabled"`
}
