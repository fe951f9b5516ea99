package etcdapi

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/kubeshim/shim/pkg/etcdapi/grpcmetrics"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// requestNames are etcd's names of what goes through the log.
var requestNames = map[mvcc.Kind]string{
	mvcc.KindPut: "Put", mvcc.KindDeleteRange: "DeleteRange", mvcc.KindTxn: "Txn", mvcc.KindCompaction: "Compaction",
	mvcc.KindLeaseGrant: "LeaseGrant", mvcc.KindLeaseRevoke: "LeaseRevoke", mvcc.KindAlarm: "Alarm",
	mvcc.KindDowngradeInfo: "DowngradeInfoSet",
	mvcc.KindAuthEnable:    "AuthEnable", mvcc.KindAuthDisable: "AuthDisable", mvcc.KindAuthenticate: "Authenticate",
	mvcc.KindUserAdd: "AuthUserAdd", mvcc.KindUserDelete: "AuthUserDelete", mvcc.KindUserChangePassword: "AuthUserChangePassword",
	mvcc.KindUserGrantRole: "AuthUserGrantRole", mvcc.KindUserRevokeRole: "AuthUserRevokeRole",
	mvcc.KindRoleAdd: "AuthRoleAdd", mvcc.KindRoleDelete: "AuthRoleDelete",
	mvcc.KindRoleGrantPermission: "AuthRoleGrantPermission", mvcc.KindRoleRevokePermission: "AuthRoleRevokePermission",
}

// requestMetrics measure what etcd measures as
// etcd_server_request_duration_seconds: what is asked of the store. Calls that are
// refused before that are not counted.
type requestMetrics struct {
	reads, readTxns grpcmetrics.Request
	proposed        map[mvcc.Kind]grpcmetrics.Request
}

func newRequestMetrics(m *grpcmetrics.Metrics) requestMetrics {
	r := requestMetrics{reads: m.Request("Range"), readTxns: m.Request("ReadonlyTxn"), proposed: make(map[mvcc.Kind]grpcmetrics.Request)}
	for kind, name := range requestNames {
		r.proposed[kind] = m.Request(name)
	}
	return r
}

// propose counts a command that was proposed, with its outcome. For etcd one
// that applying refuses has succeeded, and so has one that is too large.
func (r *requestMetrics) propose(kind mvcc.Kind, took time.Duration, err error) {
	if m, ok := r.proposed[kind]; ok && !errors.Is(err, raftstore.ErrTooManyRequests) {
		m.Took(took, err == nil || isVerdict(codeOf(toGRPC(err))))
	}
}

// isVerdict says of the error of a command that applying it gave the error.
func isVerdict(code codes.Code) bool {
	switch code {
	case codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.Aborted, codes.Internal, codes.Unavailable:
		return false
	}
	return true
}
