package etcdapi

import "time"

const (
	// watchProgressIntervalDefault is etcd's --watch-progress-notify-interval.
	watchProgressIntervalDefault = 10 * time.Minute
	// watchProgressIntervalMin is the shortest one: etcd raises what is below.
	watchProgressIntervalMin = 100 * time.Millisecond
	// watchShareBytesMin is the size from which a watch response shares its events
	// with other responses; below, they are copied into one pooled buffer.
	watchShareBytesMin = 32 * 1024
)
