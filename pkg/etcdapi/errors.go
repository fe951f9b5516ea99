package etcdapi

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/auth/token"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// errorTable is where gRPC codes and texts are born: each sentinel of the store
// and the status a client of etcd expects for it. Clients map statuses back by
// their text, so the right side is always a variable of rpctypes.
var errorTable = []struct{ sentinel, grpc error }{
	{mvcc.ErrCompacted, rpctypes.ErrGRPCCompacted},
	{mvcc.ErrFutureRev, rpctypes.ErrGRPCFutureRev},
	{mvcc.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
	{mvcc.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{mvcc.ErrValueProvided, rpctypes.ErrGRPCValueProvided},
	{mvcc.ErrLeaseProvided, rpctypes.ErrGRPCLeaseProvided},
	{mvcc.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps},
	{mvcc.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
	{mvcc.ErrInvalidSortOption, rpctypes.ErrGRPCInvalidSortOption},
	{mvcc.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{mvcc.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{mvcc.ErrLeaseTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{mvcc.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{mvcc.ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{mvcc.ErrUnsupported, errUnsupportedCommand},
	{mvcc.ErrOvertaken, rpctypes.ErrGRPCCompacted}, // in the middle of a stream

	{membership.ErrIDRemoved, rpctypes.ErrGRPCMemberNotFound},
	{membership.ErrIDNotFound, rpctypes.ErrGRPCMemberNotFound},
	{membership.ErrIDExists, rpctypes.ErrGRPCMemberExist},
	{membership.ErrPeerURLExists, rpctypes.ErrGRPCPeerURLExist},
	{membership.ErrMemberNotLearner, rpctypes.ErrGRPCMemberNotLearner},
	{membership.ErrTooManyLearners, rpctypes.ErrGRPCTooManyLearners},
	{membership.ErrNotEnoughStartedMembers, rpctypes.ErrMemberNotEnoughStarted}, // the client's value: its code on the wire is Unknown, as etcd's
	{membership.ErrLearnerNotReady, rpctypes.ErrGRPCLearnerNotReady},
	{membership.ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},

	{auth.ErrRootUserNotExist, rpctypes.ErrGRPCRootUserNotExist},
	{auth.ErrRootRoleNotExist, rpctypes.ErrGRPCRootRoleNotExist},
	{auth.ErrUserAlreadyExist, rpctypes.ErrGRPCUserAlreadyExist},
	{auth.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty},
	{auth.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound},
	{auth.ErrRoleAlreadyExist, rpctypes.ErrGRPCRoleAlreadyExist},
	{auth.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound},
	{auth.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty},
	{auth.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed},
	{auth.ErrPermissionNotGiven, rpctypes.ErrGRPCPermissionNotGiven},
	{auth.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied},
	{auth.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted},
	{auth.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted},
	{auth.ErrAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
	{auth.ErrInvalidAuthMgmt, rpctypes.ErrGRPCInvalidAuthMgmt},
	{auth.ErrAuthOldRevision, rpctypes.ErrGRPCAuthOldRevision},
	{token.ErrInvalid, rpctypes.ErrGRPCInvalidAuthToken},

	{raftstore.ErrTooManyRequests, errTooManyRequests},
	{raftstore.ErrTimeout, rpctypes.ErrGRPCTimeout},
	{raftstore.ErrTimeoutLeaderFail, rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	{raftstore.ErrTimeoutConnectionLost, rpctypes.ErrGRPCTimeoutDueToConnectionLost},
	{raftstore.ErrTransferTimeout, rpctypes.ErrGRPCTimeout},
	{raftstore.ErrNotLeader, rpctypes.ErrGRPCNotLeader},
	{raftstore.ErrNoLeader, rpctypes.ErrGRPCNoLeader},
	{raftstore.ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged},
	{raftstore.ErrBadTransferee, rpctypes.ErrGRPCBadLeaderTransferee},
	{raftstore.ErrStopped, rpctypes.ErrGRPCStopped},
	{raftstore.ErrRequestTooLarge, rpctypes.ErrGRPCRequestTooLarge},
}

// errTooManyRequests is the client's value, as in etcd's own table: its code on the wire is Unknown, and clients go by the text.
var errTooManyRequests error = rpctypes.ErrTooManyRequests

// errUnsupportedCommand answers a command that this release does not execute.
var errUnsupportedCommand = status.Error(codes.Unimplemented, "shim: command not supported")

// toGRPC is the status of an error of the store. Context errors stay as they
// are, gRPC turns them into Canceled and DeadlineExceeded; an error that is not
// in the table is Unknown with its text.
func toGRPC(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	for _, e := range errorTable {
		if errors.Is(err, e.sentinel) {
			return e.grpc
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}

// proposeError is toGRPC for a command that was proposed. As in etcd a context
// that ends while the command is under way is an ambiguous result and not the
// caller's own error: "request canceled" or "request timed out".
func proposeError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return rpctypes.ErrGRPCCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return rpctypes.ErrGRPCTimeout
	default:
		return toGRPC(err)
	}
}
