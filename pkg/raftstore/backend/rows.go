package backend

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Rows reads single rows of bucket key: versions that have left the memory of the store.
func (db *DB) Rows() mvcc.Rows { return rows{db} }

type rows struct{ db *DB }

// rowReader is a read transaction, so whatever it has found once is there until Close. The end of the DB ends it, too: who holds it may
// wait for a client.
type rowReader struct {
	db *DB

	mu     sync.Mutex
	tx     *Tx           // nil: closed
	bucket *bbolt.Bucket // if it has no pages of its own, else nil
	finder *pageFinder
	key    []byte
}

// finderPool keeps the pages that finders read into.
var finderPool = sync.Pool{New: func() any { return new(pageFinder) }}

// openRows are the readers that are not closed.
type openRows struct {
	mu      sync.Mutex
	closed  bool
	readers map[*rowReader]struct{}
}

// add is false if they have been closed.
func (o *openRows) add(r *rowReader) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.readers == nil {
		o.readers = make(map[*rowReader]struct{})
	}
	o.readers[r] = struct{}{}
	return !o.closed
}

func (o *openRows) remove(r *rowReader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.readers, r)
}

// closeAll closes the readers, and lets none be added any more.
func (o *openRows) closeAll() {
	o.mu.Lock()
	o.closed = true
	open := slices.Collect(maps.Keys(o.readers))
	o.mu.Unlock()
	for _, r := range open {
		r.Close()
	}
}

// Begin is that of mvcc.Rows.
func (r rows) Begin() (mvcc.RowReader, error) {
	tx, err := r.db.Begin()
	if err != nil {
		return nil, err
	}
	reader := &rowReader{db: r.db, tx: tx}
	bucket := tx.Bucket(bucketKey)
	if root := bucket.Root(); root != 0 {
		reader.finder = finderPool.Get().(*pageFinder)
		reader.finder.begin(r.db.path, tx, uint64(root))
	} else {
		reader.bucket = bucket
	}
	if !r.db.rows.add(reader) {
		reader.Close()
		return nil, berrors.ErrDatabaseNotOpen
	}
	return reader, nil
}

// AppendRow is that of mvcc.RowReader. Other errors than mvcc.ErrRowGone are *CorruptError: the file could not be read either. A version
// may leave memory after the reader has frozen the file, and its row may have come into the file only then: what was not there is looked
// for in the file as it is now.
func (r *rowReader) AppendRow(dst []byte, k mvcc.RowKey) (_ []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tx == nil {
		return dst, berrors.ErrDatabaseNotOpen
	}
	defer r.db.guard(debug.SetPanicOnFault(true), &err)
	r.key = k.Append(r.key[:0])
	if r.finder == nil {
		if row := r.bucket.Get(r.key); row != nil {
			return append(dst, row...), nil
		}
		return r.appendNew(dst)
	}
	dst, found, err := r.finder.append(dst, r.key)
	switch {
	case err != nil:
		return dst, r.unreadable(err)
	case !found:
		return r.appendNew(dst)
	}
	return dst, nil
}

// appendNew appends the row of r.key if it is in the file now. It must not begin another transaction: when the file has outgrown its mapping,
// a Write waits for the one that r has, and new ones wait for the Write.
func (r *rowReader) appendNew(dst []byte) ([]byte, error) {
	dst, found, err := r.db.appendNewest(dst, r.key)
	switch {
	case err != nil:
		return dst, r.unreadable(err)
	case !found:
		return dst, mvcc.ErrRowGone
	}
	return dst, nil
}

// appendNewest appends a row as the last transaction has left it, without one of its own: what that transaction has written stays until the
// next but one begins, and that waits for db.newest.
func (db *DB) appendNewest(dst, key []byte) (_ []byte, found bool, err error) {
	db.newest.RLock()
	defer db.newest.RUnlock()
	db.mu.RLock()
	if db.closed {
		db.mu.RUnlock()
		return dst, false, berrors.ErrDatabaseNotOpen
	}
	file := db.current
	file.readers.Add(1)
	db.mu.RUnlock()
	defer file.readers.Done()
	w := &pageWalker{file: file.random}
	if !w.newest(math.MaxInt64) { // how long the file was before is no matter: a Write may make it longer now, and this page the newest
		return dst, false, &CorruptError{File: db.path, Offset: w.offset, Reason: w.reason}
	}
	f := finderPool.Get().(*pageFinder)
	defer finderPool.Put(f)
	f.file, f.path, f.pageBytes, f.fileBytes = file.random, db.path, w.pageBytes, int64(w.highWater)*w.pageBytes
	f.restart(w.root)
	bucket, found, err := f.append(nil, bucketKey)
	if err != nil || !found {
		return dst, false, err
	}
	if len(bucket) < bucketBytes {
		return dst, false, f.wrong(-1, "bucket header of %d bytes", len(bucket))
	}
	if root := binary.LittleEndian.Uint64(bucket); root != 0 {
		f.restart(root)
		return f.append(dst, key)
	}
	return f.appendInline(dst, bucket[bucketBytes:], key)
}

// unreadable makes a *CorruptError of what is none.
func (r *rowReader) unreadable(err error) error {
	var c *CorruptError
	if errors.As(err, &c) {
		return c
	}
	return &CorruptError{File: r.db.path, Offset: -1, Reason: err.Error()}
}

// ReadAhead is that of mvcc.RowReader. An error will be met again by who reads the row.
func (r *rowReader) ReadAhead(rows []mvcc.RowAhead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tx == nil || r.finder == nil {
		return
	}
	_ = r.finder.ahead(rows)
}

// Close ends the transaction. It may be called again.
func (r *rowReader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tx == nil {
		return
	}
	r.db.rows.remove(r)
	_ = r.tx.Rollback()
	r.tx = nil
	if r.finder != nil {
		finderPool.Put(r.finder)
		r.finder = nil
	}
}
