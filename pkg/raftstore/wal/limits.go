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
	// pageBytes is the block in which the log is written: each write is of whole pages.
	pageBytes = vfs.DirectBytes
	// bufferBytesMin is the write buffer's first size.
	bufferBytesMin = 16 << 10
	// bufferKeepBytes is up to which size the write buffer is kept from one Append to the next.
	bufferKeepBytes = 8 << 20
	// readBytes is how much replay reads at once.
	readBytes = 256 << 10

	segmentBytesDefault = 64 << 20
	segmentBytesMin     = 4 * pageBytes
	segmentBytesMax     = 1 << 30

	// unsyncedUnknown in a record's header claims nothing about what was durable when it was written.
	unsyncedUnknown = 1<<24 - 1
)

// The relations that the format relies on.
var (
	_ [headerBytes % pageBytes]struct{}           = [0]struct{}{}
	_ [pageBytes % sectorBytes]struct{}           = [0]struct{}{}
	_ [recordHeaderBytes % alignBytes]struct{}    = [0]struct{}{}
	_ [segmentBytesMax - segmentBytesDefault]byte // a negative length does not compile
)
