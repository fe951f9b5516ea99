package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Options of a log; the zero value of each member is its default.
type Options struct {
	// SegmentBytes is the size of a new segment file, in bytes, a multiple of 4096 from 16 KiB to 1 GiB; default 64 MiB.
	// Two to three of them stand on disk at all times. Smaller ones suit small disks and cost a rotation (three fsyncs)
	// more often; the records of one Append have to fit into one. Segments that are there keep their size.
	SegmentBytes int64
	// Header gives the records which each new segment begins with, so that what they say survives the release of older
	// segments. It is called by Append on the caller's goroutine, and by Open if there is no segment yet. Replay sees
	// these records like all others. It must not call the log. Default none.
	Header func() []Record
	// OnWrite is told how many bytes each write of Append had, whole pages, and how long it took. Default none.
	OnWrite func(bytes int, took time.Duration)
	// OnFsync is told how long each fdatasync of Sync took. Default none.
	OnFsync func(time.Duration)
	// ReserveInline makes the spare segment within the call that used up the one before, and no goroutine, for tools and
	// for simulations that must run the same way each time. Default: a goroutine makes it.
	ReserveInline bool
	// PackBytes is what the payloads of one Append may have in all, in bytes, for them to be packed, if they are at most 4. More writes
	// less where appends come alone; less saves processor time. Default and at most 16 KiB; below 0: none are.
	PackBytes int
	// Salt gives the number that makes the checksums of one segment different from those of all others. Default:
	// crypto/rand. Simulations give their own.
	Salt func() uint64
}

// EnsureDefaults fills in the defaults.
func (o *Options) EnsureDefaults() {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytesDefault
	}
	if o.PackBytes == 0 {
		o.PackBytes = packBytesMax
	}
	if o.Header == nil {
		o.Header = func() []Record { return nil }
	}
	if o.OnWrite == nil {
		o.OnWrite = func(int, time.Duration) {}
	}
	if o.OnFsync == nil {
		o.OnFsync = func(time.Duration) {}
	}
	if o.Salt == nil {
		o.Salt = randomSalt
	}
}

// Validate reports everything that is wrong, at once.
func (o *Options) Validate() error {
	var errs []error
	if o.SegmentBytes < segmentBytesMin || o.SegmentBytes > segmentBytesMax {
		errs = append(errs, fmt.Errorf("segment size of %d bytes is not between %d and %d",
			o.SegmentBytes, segmentBytesMin, segmentBytesMax))
	}
	if o.SegmentBytes%pageBytes != 0 {
		errs = append(errs, fmt.Errorf("segment size of %d bytes is not a multiple of %d", o.SegmentBytes, pageBytes))
	}
	if o.PackBytes > packBytesMax {
		errs = append(errs, fmt.Errorf("payloads are packed up to %d bytes, not %d", packBytesMax, o.PackBytes))
	}
	return errors.Join(errs...)
}

func randomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
