package backend

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// file is an open bbolt file and its readers. It is closed once it was replaced and the last of them has ended. bbolt's own Close waits
// for readers as well, but holds the locks meanwhile that others need to begin and to end: all of them would wait for the slowest.
type file struct {
	*bbolt.DB
	readers sync.WaitGroup
}

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
	old := db.current
	db.mu.Lock()
	db.current = next
	db.mu.Unlock()
	db.renamed = true
	db.measure()
	db.retired.Go(func() {
		old.readers.Wait()
		old.Close()
	})
	return db.syncName()
}

// syncName makes the last rename durable.
func (db *DB) syncName() error {
	if !db.renamed {
		return nil
	}
	if err := db.opts.FS.SyncDir(filepath.Dir(db.path)); err != nil {
		return fmt.Errorf("sync directory of the database: %w", err)
	}
	db.renamed = false
	return nil
}

// Replace renames a file to the one that is open, and goes on with it. Readers go on with the old file until they end. A crash leaves
// the old or the new file.
func (db *DB) Replace(name string) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	h, err := db.open(name)
	if err != nil {
		return err
	}
	if err := createBuckets(h); err != nil {
		return errors.Join(err, h.Close())
	}
	next := &file{DB: h}
	if err = db.replace(name, next); db.current != next {
		return errors.Join(err, h.Close())
	}
	return err
}

// Close waits for the readers.
func (db *DB) Close() error {
	db.mu.Lock()
	db.closed = true
	db.mu.Unlock()
	db.current.readers.Wait()
	err := db.current.Close()
	db.retired.Wait()
	return err
}
