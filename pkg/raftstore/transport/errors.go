package transport

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Why a member refuses another one. The texts are etcd's, where etcd has one; they are what goes over the wire, and the side that is
// refused gets these values back.
var (
	// ErrRemoved: the sender was a member and never will be again.
	ErrRemoved = errors.New("the member has been permanently removed from the cluster")
	// ErrClusterMismatch: the two sides belong to different clusters.
	ErrClusterMismatch = errors.New("cluster ID mismatch")
	// ErrWrongMember: another member than the intended one answers at this URL.
	ErrWrongMember = errors.New("to field mismatch")
	// ErrUnknownMember: the receiver does not know the sender.
	ErrUnknownMember = errors.New("error sender not found")
	// ErrIncompatible: the two sides do not speak the same protocol.
	ErrIncompatible = errors.New("incompatible version")
	// ErrTooManySnapshots: the receiver takes as many snapshots as it can already.
	ErrTooManySnapshots = errors.New("too many snapshots are being received")
	// ErrChecksum: a snapshot did not arrive as it was sent.
	ErrChecksum = errors.New("snapshot checksum mismatch")
	// ErrClosed: this transport, or the one on the other side, was closed.
	ErrClosed = errors.New("the member is stopping")
)

var (
	// ErrUnreachable: there is no connection to the peer at the moment.
	ErrUnreachable = errors.New("peer is not reachable")

	errSilent      = errors.New("peer does not answer probes")
	errDialTimeout = errors.New("no answer in time")
	errURLGone     = errors.New("the peer no longer has this URL")
	errEnded       = errors.New("closed by the peer")
	errStalled     = errors.New("snapshot does not get on")
	errUnread      = errors.New("snapshot was taken without reading it to its end")
	errReplaced    = errors.New("replaced by a newer stream of the same member")
	errMalformed   = errors.New("malformed frame")
)

// refusals is the one table between errors and gRPC codes.
var refusals = []struct {
	err  error
	code codes.Code
}{
	{ErrRemoved, codes.PermissionDenied},
	{ErrClusterMismatch, codes.FailedPrecondition},
	{ErrWrongMember, codes.FailedPrecondition},
	{ErrIncompatible, codes.FailedPrecondition},
	{ErrUnknownMember, codes.NotFound},
	{ErrTooManySnapshots, codes.ResourceExhausted},
	{ErrChecksum, codes.DataLoss},
	{ErrClosed, codes.Unavailable},
	{errReplaced, codes.Aborted},
	{errStalled, codes.DeadlineExceeded},
	{errMalformed, codes.InvalidArgument},
}

// toStatus is what a peer is told. Statuses pass, errors of the table go by their text, those of contexts get their code, others keep
// their text with code Unknown.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return status.Error(r.code, r.err.Error())
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err() // Unknown, if it is none
}

// fromStatus is the reverse of toStatus. An error that is none of the table's stays a status, so that its code can be read.
func fromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, r := range refusals {
		if st.Code() == r.code && st.Message() == r.err.Error() {
			return r.err
		}
	}
	if st.Code() == codes.Unimplemented {
		return fmt.Errorf("%w: %s", ErrIncompatible, st.Message())
	}
	return err
}

// causeOf prefers the reason for which ctx was cancelled to the error that followed from it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
