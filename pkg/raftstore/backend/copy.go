package backend

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// snapshotChunkBytes is how much of the file is in memory while it is copied.
const snapshotChunkBytes = 256 << 10

// Copy writes the whole file as it was when the reader began. It reads chunks of snapshotChunkBytes, past the page cache where the file system
// can: a copy evicts nothing, and costs no memory but one chunk. pace is called behind each chunk with its bytes and the time that reading
// took; its error ends the copy.
func (tx *Tx) Copy(w io.Writer, pace func(bytes int, read time.Duration) error) (n int64, err error) {
	c := &copier{w: w, pace: pace}
	tx.WriteFlag = vfs.DirectFlag
	n, err = tx.WriteTo(c)
	if n == 0 && errors.Is(err, syscall.EINVAL) { // the file system does not know the flag
		tx.WriteFlag = 0
		n, err = tx.WriteTo(c)
	}
	return n, err
}

// copier is what bbolt writes to: two meta pages, which it makes, and all others, which ReadFrom reads from the file.
type copier struct {
	w    io.Writer
	pace func(bytes int, read time.Duration) error
}

func (c *copier) Write(b []byte) (int, error) { return c.w.Write(b) }

// ReadFrom is used by bbolt's io.Copy. All reads but the last begin and end at a multiple of the chunk, behind the meta pages, and the
// last one ends at a page: whole blocks into aligned memory, as direct reads need.
func (c *copier) ReadFrom(r io.Reader) (n int64, err error) {
	buf := vfs.AlignedBuffer(snapshotChunkBytes)[:snapshotChunkBytes]
	for {
		start := time.Now()
		got, rerr := r.Read(buf)
		took := time.Since(start)
		if got > 0 {
			put, err := c.w.Write(buf[:got])
			n += int64(put)
			if err != nil {
				return n, err
			}
			if err := c.pace(got, took); err != nil {
				return n, err
			}
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
