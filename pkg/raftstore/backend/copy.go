package backend

import (
	"errors"
	"io"
	"os"
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
	if n == 0 && !c.wrote { // it could not be opened in that way
		tx.WriteFlag = 0
		n, err = tx.WriteTo(c)
	}
	return n, err
}

// openFile opens files for bbolt. For direct reads it opens a file again, by the name that it had when it was opened first: that of this
// database now, if it has replaced another one. (bbolt looks whether it is the same file, and goes on with the one that is open if it is not.)
func (db *DB) openFile(name string, flag int, mode os.FileMode) (*os.File, error) {
	if flag&vfs.DirectFlag != 0 {
		name = db.path
	}
	return db.opts.OpenFile(name, flag, mode)
}

// copier is what bbolt writes to: two meta pages, which it makes, and all others, which ReadFrom reads from the file.
type copier struct {
	w     io.Writer
	pace  func(bytes int, read time.Duration) error
	wrote bool
}

func (c *copier) Write(b []byte) (int, error) {
	c.wrote = true
	return c.w.Write(b)
}

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
