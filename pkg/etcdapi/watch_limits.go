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
	// watchHeadBytesMax is up to where a piece of an event is copied to what it
	// follows: what is between the versions is, and of events only some of very
	// short keys are so short.
	watchHeadBytesMax = 24
	// watchMessagePieces and watchMessageHeadsBytes are what a watchMessage has room
	// for, which is enough for one event; more is allocated beside it.
	watchMessagePieces     = 4
	watchMessageHeadsBytes = 80
)
