package raftstore

import (
	"fmt"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Event is something worth a line in a log. The types below are all there are.
type Event interface{ String() string }

// Opened: the data dir was read, and the store is about to start.
type Opened struct {
	MemberID, ClusterID types.ID
	New                 bool   // the data dir was empty
	Checkpoint          uint64 // index that bbolt held
	Replayed            int    // entries behind it in the WAL
	Revision            mvcc.Revision
	Index               uint64 // what was applied before the start
	Hash                uint64 // of the state at Index, equal on all members that were there
	Took                time.Duration
}

func (e Opened) String() string {
	if e.New {
		return fmt.Sprintf("started member %s of new cluster %s", e.MemberID, e.ClusterID)
	}
	return fmt.Sprintf("restarted member %s of cluster %s from checkpoint at index %d and %d log entries in %v; revision %d",
		e.MemberID, e.ClusterID, e.Checkpoint, e.Replayed, e.Took.Round(time.Millisecond), e.Revision)
}

// LeaderChanged: the member sees another leader; 0 is none.
type LeaderChanged struct {
	Leader types.ID
	Term   uint64
	Self   bool
}

func (e LeaderChanged) String() string {
	if e.Leader == 0 {
		return fmt.Sprintf("lost the leader at term %d", e.Term)
	}
	return fmt.Sprintf("leader is %s at term %d", e.Leader, e.Term)
}

// LoadingOn: a start that takes more than a second goes on.
type LoadingOn struct{ Progress string }

func (e LoadingOn) String() string { return "loading: " + e.Progress }

// CheckpointDone: bbolt holds the state at Index.
type CheckpointDone struct {
	Reason        string
	Index         uint64
	Puts, Deletes int
	Took          time.Duration
}

func (e CheckpointDone) String() string {
	return fmt.Sprintf("checkpoint (%s) at index %d: %d rows written, %d deleted in %v",
		e.Reason, e.Index, e.Puts, e.Deletes, e.Took.Round(time.Millisecond))
}

// CheckpointFailed: bbolt stays as it was; the log keeps what it lacks, and another attempt follows.
type CheckpointFailed struct {
	Reason string
	Err    error
}

func (e CheckpointFailed) String() string {
	return fmt.Sprintf("checkpoint (%s) failed, it will be tried again: %v", e.Reason, e.Err)
}

// RemovalDone: no row that a compaction has made dead is left in bbolt, after more parts than one.
type RemovalDone struct {
	Rows, Parts int
	Took        time.Duration // with the pauses between the parts
}

func (e RemovalDone) String() string {
	return fmt.Sprintf("removed %d dead rows in %d parts in %v", e.Rows, e.Parts, e.Took.Round(time.Millisecond))
}

// DefragmentDone: the bbolt file was written anew.
type DefragmentDone struct {
	Before, After int64 // bytes
	Copied        int64 // bytes of rows, those that changed meanwhile more than once
	Took          time.Duration
	Asked         bool // by a call
}

func (e DefragmentDone) String() string {
	how := "automatically"
	if e.Asked {
		how = "on request"
	}
	return fmt.Sprintf("defragmented the database %s from %d to %d bytes in %v, %d bytes copied", how, e.Before, e.After,
		e.Took.Round(time.Millisecond), e.Copied)
}

// DefragmentFailed: the database file is what it was, or the new one. One that nobody asked for is tried again.
type DefragmentFailed struct{ Err error }

func (e DefragmentFailed) String() string {
	return fmt.Sprintf("defragmentation of the database failed: %v", e.Err)
}

// DefragmentPutOff: the database file has pages that are not needed, and cannot be written anew.
type DefragmentPutOff struct {
	Free   int64 // bytes
	Reason string
}

func (e DefragmentPutOff) String() string {
	return fmt.Sprintf("the database has free pages and is not defragmented: %s; %d bytes are free", e.Reason, e.Free)
}

// CompactionDone: the versions below Revision that nothing needs any more have left memory.
type CompactionDone struct{ Revision mvcc.Revision }

func (e CompactionDone) String() string { return fmt.Sprintf("compacted to revision %d", e.Revision) }

// SpaceChanged: the disk got full, or has room again.
type SpaceChanged struct{ Low bool }

func (e SpaceChanged) String() string {
	if e.Low {
		return "no space left on the disk of the log: writes that need space are refused"
	}
	return "there is space on the disk of the log again"
}

// AlarmChanged: an alarm was raised or disarmed by the cluster.
type AlarmChanged struct {
	Alarm  string
	Member types.ID
	Raised bool
}

func (e AlarmChanged) String() string {
	verb := "disarmed"
	if e.Raised {
		verb = "raised"
	}
	return fmt.Sprintf("alarm %s of member %s %s", e.Alarm, e.Member, verb)
}

// QuotaNear: so many percent of the quota are used, for the first time or again.
type QuotaNear struct {
	Percent     int
	Used, Quota int64 // bytes
}

func (e QuotaNear) String() string {
	return fmt.Sprintf("%d %% of the quota is reached: %d of %d bytes are used by live keys and leases", e.Percent, e.Used, e.Quota)
}

// MembersChanged: the membership was changed by a committed entry. Err is why it was refused instead.
type MembersChanged struct {
	Change string
	Err    error
}

func (e MembersChanged) String() string {
	if e.Err != nil {
		return fmt.Sprintf("membership change %s refused: %v", e.Change, e.Err)
	}
	return "membership change " + e.Change
}

// ClusterForced: this member goes on without the others, by --force-new-cluster.
type ClusterForced struct {
	Removed int
	Index   uint64 // the last entry of the log
}

func (e ClusterForced) String() string {
	return fmt.Sprintf("forced a new cluster: %d other members removed at entry %d", e.Removed, e.Index)
}

// SelfRemoved: this member was removed from the cluster; see Store.Removed.
type SelfRemoved struct{}

func (SelfRemoved) String() string { return "the member has been permanently removed from the cluster" }

// LeasesExpired: the revocation of leases was proposed.
type LeasesExpired struct{ Count int }

func (e LeasesExpired) String() string { return fmt.Sprintf("%d leases expired", e.Count) }

// DiskStalled: this leader's log has not been written for an election timeout, so another member is to lead.
type DiskStalled struct{ Transferee types.ID }

func (e DiskStalled) String() string {
	return fmt.Sprintf("the disk of the log hangs: giving the leadership to %s", e.Transferee)
}

// SnapshotInstalled: the leader's state replaced this member's, which had fallen behind.
type SnapshotInstalled struct {
	Index    uint64
	Revision mvcc.Revision
}

func (e SnapshotInstalled) String() string {
	return fmt.Sprintf("installed a snapshot at index %d; revision %d", e.Index, e.Revision)
}

// RaftWarning is what the raft library warns of.
type RaftWarning struct{ Text string }

func (e RaftWarning) String() string { return "raft: " + e.Text }

// Fatal: the log could not be written. Nothing is acknowledged from here on, and the process has to end; see Store.Failed.
type Fatal struct{ Err error }

func (e Fatal) String() string { return fmt.Sprintf("fatal: %v", e.Err) }
