package watchcache

import "errors"

var (
	// ErrEmptyRange refuses a watch whose range end is not after its key. The text is etcd's.
	ErrEmptyRange = errors.New("mvcc: watcher range is empty")
	// ErrDuplicateID refuses a watch ID that is in use on the stream. The text is etcd's.
	ErrDuplicateID = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrClosed is Next's answer once the stream is closed.
	ErrClosed = errors.New("watch stream is closed")
	// ErrStopped is Next's answer once the hub was closed.
	ErrStopped = errors.New("watch hub is closed")
)
