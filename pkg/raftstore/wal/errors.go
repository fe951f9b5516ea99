package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrNoSpace says that the disk is full: the log would need a segment and has none, or the file system has no block
	// for a write. The call changed nothing and may be tried again.
	ErrNoSpace = errors.New("no space for the write-ahead log")
	// ErrNewerFormat says that a segment was written by a newer version of this package.
	ErrNewerFormat = errors.New("write-ahead log has a newer format than this version reads")
	// ErrTooLarge says that the records of one call do not fit into one segment; see WAL.BatchBytesMax.
	ErrTooLarge = errors.New("batch is larger than a segment of the write-ahead log")
	// ErrReservedType says that a record has type TypeReserved.
	ErrReservedType = errors.New("record type 0 is reserved")
	// ErrClosed says that the log is closed.
	ErrClosed = errors.New("write-ahead log is closed")
)

// CorruptError says that a segment holds something a crash cannot leave. The log must not be used, since what was
// acknowledged may be missing.
type CorruptError struct {
	File   string // path of the segment
	Offset int64  // bytes from its start
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt write-ahead log: %s at offset %d: %s", e.File, e.Offset, e.Reason)
}
