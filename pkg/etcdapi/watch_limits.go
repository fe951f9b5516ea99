package etcdapi

import "time"

const (
	// watchProgressIntervalDefault is etcd's --watch-progress-notify-interval.
	watchProgressIntervalDefault = 10 * time.Minute
	// watchProgressIntervalMin is the shortest one: etcd raises what is below.
	watchProgressIntervalMin = 100 * time.Millisecond
	// watchShareBytesMin is the size from which a watch response shares its events
	// with other responses; below, they are copied. It is where copying begins to
	// need the transport's buffer pool.
	watchShareBytesMin = 1024
	// watchMessageEvents and watchMessageHeadBytes are what a watchMessage has room
	// for; more is allocated beside it.
	watchMessageEvents    = 3
	watchMessageHeadBytes = 48
)
