package wal

import "github.com/kubeshim/shim/pkg/raftstore/vfs"

const (
	// headerBytes is the size of a segment's header block; the first record stands behind it. It is a page, so that no
	// later write touches the page of the header.
	headerBytes = pageBytes
	// recordHeaderBytes is the size of what stands before a record's payload.
	recordHeaderBytes = 24
	// sealBytes is what the seal of a full segment takes.
	sealBytes = recordHeaderBytes + alignBytes
	// alignBytes is what each record's size is rounded up to.
	alignBytes = 8
	// sectorBytes is the unit a crash keeps or loses.
	sectorBytes = 512
	// pageBytes is what the first write into it fills up, with zeros behind the records. Later ones write the sectors they touch, where the
	// disk takes those.
	pageBytes = vfs.DirectBytes
	// bufferBytesMin is the write buffer's first size.
	bufferBytesMin = 16 << 10
	// bufferKeepBytes is up to which size the write buffer is kept from one Append to the next.
	bufferKeepBytes = 8 << 20
	// packedFactorMax times a segment's size is what its records may have been given with: a start unpacks all of the segment that a
	// checkpoint ends in.
	packedFactorMax = 8
	// readBytes is how much replay reads at once.
	readBytes = 256 << 10

	segmentBytesDefault = 64 << 20
	segmentBytesMin     = 4 * pageBytes
	segmentBytesMax     = 1 << 30

	// packBytesMax bounds Options.PackBytes, and what a packed payload may have. More than that fills its sectors anyway.
	packBytesMax = 16 << 10
	// packRecordsMax is how many records an Append may have that is packed. More of them share their sectors, and come
	// when the processors have something better to do.
	packRecordsMax = 4
	// windowBytes is how far back a match may reach.
	windowBytes = 64<<10 - 1
	// windowSlack is by how much the writer's window may be too long before it is cut.
	windowSlack = 64 << 10
	matchMin    = 4
	// The hash by which matches are found has so many bits, of so many bytes.
	packHashBits  = 13
	packHashBytes = 5
	// packPatience: for each 2^packPatience bytes without a match one more is skipped between two looks.
	packPatience = 5
	// packStride is how far apart the places inside of a match are that can be found later.
	packStride = 8

	// unsyncedUnknown in a record's header claims nothing about what was durable when it was written.
	unsyncedUnknown = 1<<24 - 1
)

// The relations that the format relies on.
var (
	_ [headerBytes % pageBytes]struct{}           = [0]struct{}{}
	_ [pageBytes % sectorBytes]struct{}           = [0]struct{}{}
	_ [recordHeaderBytes % alignBytes]struct{}    = [0]struct{}{}
	_ [segmentBytesMax - segmentBytesDefault]byte // a negative length does not compile
	_ [readBytes - windowBytes - packBytesMax]byte
	_ = uint64(flagPacked - segmentBytesMax)
)
