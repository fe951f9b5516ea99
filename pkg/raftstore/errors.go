package raftstore

import (
	"errors"
	"fmt"
)

// The operating errors of a Store. They are compared with errors.Is; etcdapi maps them to the client's codes and texts.
var (
	// ErrStopped: the store is closed or closing.
	ErrStopped = errors.New("store stopped")
	// ErrTimeout: the proposal was not answered within RequestTimeout. Whether it takes effect is unknown.
	ErrTimeout = errors.New("request timed out")
	// ErrTimeoutLeaderFail is ErrTimeout of a proposal that was under way when the leader was lost.
	ErrTimeoutLeaderFail = errors.New("request timed out, possibly due to previous leader failure")
	// ErrTimeoutConnectionLost is ErrTimeout while the leader, or as the leader a majority, could not be reached.
	ErrTimeoutConnectionLost = errors.New("request timed out, possibly due to connection lost")
	// ErrTransferTimeout: the leadership did not move in time.
	ErrTransferTimeout = errors.New("request timed out, leader transfer took too long")
	// ErrRemoved: this member was removed from the cluster, and does not come back. Its data dir is of no use any more.
	ErrRemoved = errors.New("the member has been permanently removed from the cluster")
	// ErrInconsistent: other members have other rows at the same revision (Config.InitialCorruptCheck).
	ErrInconsistent = errors.New("found data inconsistency with peers")
	// ErrNoLeader: the cluster has no leader.
	ErrNoLeader = errors.New("no leader")
	// ErrNotLeader: this member is not the leader, and the call is answered by the leader only.
	ErrNotLeader = errors.New("not leader")
	// ErrLeaderChanged: the leader changed while the call waited.
	ErrLeaderChanged = errors.New("leader changed")
	// ErrTooManyRequests: the proposal queue is full, or applying lags too far behind the log.
	ErrTooManyRequests = errors.New("too many requests")
	// ErrRequestTooLarge: the log entry would be larger than Config.MaxRequestBytes.
	ErrRequestTooLarge = errors.New("request is too large")
	// ErrBadTransferee: the member asked to become leader is not a voting member.
	ErrBadTransferee = errors.New("bad leader transferee")
	// ErrInUse: another process has the data dir open.
	ErrInUse = errors.New("data dir is in use by another process")
	// ErrNewerFormat: the data dir was written by a newer version.
	ErrNewerFormat = errors.New("written by a newer format")
	// ErrMisplacedLog: the log is not, or not only, where Config.WALDir says.
	ErrMisplacedLog = errors.New("the log is in another directory")
	// ErrEtcdDataDir: the data dir holds the WAL of real etcd.
	ErrEtcdDataDir = errors.New("data dir belongs to etcd")
)

// CorruptError is a file that does not hold what was written to it. Offset is in bytes; -1 when no single place is at fault.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("corrupt file %s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("corrupt file %s at offset %d: %s", e.File, e.Offset, e.Reason)
}
