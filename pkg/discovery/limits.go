package discovery

import "time"

// The defaults of etcd's --discovery-... flags.
const (
	DialTimeoutDefault      = 2 * time.Second
	RequestTimeoutDefault   = 5 * time.Second
	KeepAliveTimeDefault    = 2 * time.Second
	KeepAliveTimeoutDefault = 6 * time.Second
)

const (
	// retryDoublingsMax is how often the pause between two attempts doubles, from 2 s on.
	retryDoublingsMax = 8
	// watchPause is the least time between two watches of the members; a service that cancels each at once is not flooded.
	watchPause = 100 * time.Millisecond
)
