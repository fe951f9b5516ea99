package backend

import (
	"maps"
	"runtime/debug"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

const (
	// forgetBytes is how much of the mapped file single rows may bring into this process's memory until its pages leave that again. The
	// kernel goes on to have them as a cache, as far as there is room.
	forgetBytes = 16 << 20
	// forgetLoadBytes is the same for each part of a Load.
	forgetLoadBytes = 32 << 20
	// faultBytes is about what the kernel maps around a page that is touched.
	faultBytes = 32 << 10
)

// Rows reads single rows of bucket key: versions that have left the memory of the store.
func (db *DB) Rows() mvcc.Rows { return rows{db} }

type rows struct{ db *DB }

// rowReader is a read transaction, so whatever it has found once is there until Close. The end of the DB ends it, too: who holds it may
// wait for a client.
type rowReader struct {
	db *DB

	mu     sync.Mutex
	tx     *Tx // nil: closed
	bucket *bbolt.Bucket
	key    []byte
	mapped int64 // bytes that are mapped for it
}

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
	reader := &rowReader{db: r.db, tx: tx, bucket: tx.Bucket(bucketKey)}
	if !r.db.rows.add(reader) {
		reader.Close()
		return nil, berrors.ErrDatabaseNotOpen
	}
	return reader, nil
}

// AppendRow is that of mvcc.RowReader. Other errors than mvcc.ErrRowGone are *CorruptError: the file could not be read either.
func (r *rowReader) AppendRow(dst []byte, k mvcc.RowKey) (_ []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tx == nil {
		return dst, berrors.ErrDatabaseNotOpen
	}
	defer r.db.guard(debug.SetPanicOnFault(true), &err)
	r.key = k.Append(r.key[:0])
	row := r.bucket.Get(r.key)
	if row == nil {
		return dst, mvcc.ErrRowGone
	}
	r.mapped += int64(len(row)) + faultBytes
	return append(dst, row...), nil
}

// Close ends the transaction. It may be called again.
func (r *rowReader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tx == nil {
		return
	}
	r.db.rows.remove(r)
	if r.db.mapped.Add(r.mapped) > forgetBytes {
		r.db.mapped.Store(0)
		forget(r.tx.DB().Info().Data, r.tx.Size())
	}
	_ = r.tx.Rollback()
	r.tx = nil
}
