package backend

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// file is an open bbolt file and its readers. It is closed once it was replaced and the last of them has ended. bbolt's own Close waits
// for readers as well, but holds the locks meanwhile that others need to begin and to end: all of them would wait for the slowest.
type file struct {
	*bbolt.DB
	raw     *os.File // the same file, for what bbolt does not do
	random  *os.File // the same file, of which the kernel reads no more than what is asked for
	readers sync.WaitGroup
}

func newFile(h *bbolt.DB, name string) (*file, error) {
	flag := os.O_RDWR
	if h.IsReadOnly() {
		flag = os.O_RDONLY
	}
	raw, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	random, err := os.Open(name)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	readsAtRandom(random)
	w := &pageWalker{file: random}
	h.NoFreelistSync = !h.IsReadOnly() && w.newest(math.MaxInt64) && w.freelist == noFreelist // until the next transaction: see Close
	return &file{DB: h, raw: raw, random: random}, nil
}

func (f *file) Close() error { return errors.Join(f.DB.Close(), f.random.Close(), f.raw.Close()) }

// Tx is a reader of what the file holds when it begins. Between Begin and Rollback it belongs to one goroutine.
type Tx struct {
	*bbolt.Tx
	file *file
}

// Begin gives a reader of what the file holds now, and waits neither for a Write nor for other readers. It has to be ended with Rollback.
// When the file is replaced, a reader that began before keeps the old one, and its room on the disk.
func (db *DB) Begin() (*Tx, error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed {
		return nil, berrors.ErrDatabaseNotOpen
	}
	tx, err := db.current.Begin(false)
	if err != nil {
		return nil, err
	}
	db.current.readers.Add(1)
	return &Tx{Tx: tx, file: db.current}, nil
}

// Rollback ends the reader. What it gave is not valid any more.
func (tx *Tx) Rollback() error {
	err := tx.Tx.Rollback()
	if err == nil { // not ended before
		tx.file.readers.Done()
	}
	return err
}

// replace renames a file, which is open and durable, to the one of the DB, and goes on with it. After an error of the rename nothing has
// changed. After one of the sync it is not known which of the two a crash would leave, and nothing is written to the new file before
// the directory could be synced.
func (db *DB) replace(name string, next *file) error {
	if err := db.opts.FS.Rename(name, db.path); err != nil {
		return fmt.Errorf("replace the database: %w", err)
	}
	db.replaced = append(db.replaced, db.current)
	db.mu.Lock()
	db.current = next
	db.mu.Unlock()
	db.measure()
	return db.syncName()
}

// syncName makes the last rename durable, and then lets the files go that were replaced.
func (db *DB) syncName() error {
	if len(db.replaced) == 0 {
		return nil
	}
	if err := db.opts.FS.SyncDir(filepath.Dir(db.path)); err != nil {
		return fmt.Errorf("sync directory of the database: %w", err)
	}
	for _, f := range db.replaced {
		db.retired.Go(func() { db.retire(f) })
	}
	db.replaced = nil
	return nil
}

// retire closes a file behind its last reader. To close the last descriptor of a large file that has no name would free all its pages
// in one piece, for which the file system's journal, and so the log's next sync, would wait (45 ms for 660 MB on ext4): it is cut short
// bit by bit before. One that has another name yet, say of an operator's copy, is left as it is.
func (db *DB) retire(f *file) {
	f.readers.Wait()
	_ = f.DB.Close()
	_ = f.random.Close()
	defer f.raw.Close()
	info, err := f.raw.Stat()
	if err != nil || !unlinked(f.raw) {
		return
	}
	for size := info.Size() - retireBytes; size > 0; size -= retireBytes {
		start := time.Now()
		if f.raw.Truncate(size) != nil {
			return
		}
		select {
		case <-time.After(min(retirePauseFactor*time.Since(start), retirePauseMax)):
		case <-db.closing:
			return
		}
	}
}

// Replace renames a file to the one that is open, and goes on with it. Readers go on with the old file until they end. A crash leaves
// the old or the new file.
func (db *DB) Replace(name string) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	db.defragmentation.Cancel() // it is of the old file
	h, err := db.open(name)
	if err != nil {
		return err
	}
	if err := createBuckets(h, name); err != nil {
		return errors.Join(err, h.Close())
	}
	next, err := newFile(h, name)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	if err = db.replace(name, next); db.current != next {
		return errors.Join(err, next.Close())
	}
	return err
}

// Close waits for the readers, and ends those of single rows. It is idempotent.
func (db *DB) Close() error {
	if db.closed {
		return nil
	}
	db.defragmentation.Cancel()
	if db.current.NoFreelistSync { // the last transaction left it out; without it the next Open takes longer, and no more
		_ = db.write(func(*writer) error { return nil })
	}
	db.mu.Lock()
	db.closed = true
	db.mu.Unlock()
	close(db.closing)
	db.rows.closeAll()
	db.current.readers.Wait()
	err := db.current.Close()
	db.retired.Wait()
	for _, f := range db.replaced {
		f.readers.Wait()
		err = errors.Join(err, f.Close())
	}
	return err
}
