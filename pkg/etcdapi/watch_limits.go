package etcdapi

import "time"

const (
	// watchProgressIntervalDefault is etcd's --watch-progress-notify-interval.
	watchProgressIntervalDefault = 10 * time.Minute
	// watchProgressIntervalMin is the shortest one: etcd raises what is below.
	watchProgressIntervalMin = 100 * time.Millisecond
	// watchShareBytesMin is the size from which a watch response shares its events
	// with other responses; below, they are copied into one pooled buffer. (Sharing
	// from 2 KiB on measured no better with events of 6 kB: the transport copies
	// anyway, and copying leaves one slice to walk.)
	watchShareBytesMin = 32 * 1024
)
