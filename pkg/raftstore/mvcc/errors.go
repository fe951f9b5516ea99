package mvcc

import "errors"

// The refusals of the state machine. Their texts are internal: pkg/etcdapi has
// the one table that maps them to what etcd's clients expect.
var (
	ErrCompacted         = errors.New("required revision has been compacted")
	ErrFutureRev         = errors.New("required revision is a future revision")
	ErrEmptyKey          = errors.New("key is not provided")
	ErrKeyNotFound       = errors.New("key not found")
	ErrValueProvided     = errors.New("value is provided")
	ErrLeaseProvided     = errors.New("lease is provided")
	ErrTooManyOps        = errors.New("too many operations in txn request")
	ErrDuplicateKey      = errors.New("duplicate key given in txn request")
	ErrInvalidSortOption = errors.New("invalid sort option")
	ErrLeaseNotFound     = errors.New("requested lease not found")
	ErrLeaseExists       = errors.New("lease already exists")
	ErrLeaseTTLTooLarge  = errors.New("too large lease TTL")
	ErrNoSpace           = errors.New("database space exceeded")
	ErrCorrupt           = errors.New("corrupt cluster")
	ErrUnsupported       = errors.New("request is not supported")

	// ErrStaleExpiry is the answer to a lease expiry or checkpoint that was decided in a
	// term other than the one it was appended in: the decider had lost its
	// leadership, so nothing was revoked.
	ErrStaleExpiry = errors.New("what befalls a lease was decided in another term")
)
