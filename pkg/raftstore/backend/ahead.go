package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// PutAhead puts rows of the state that the next Write will bring the file to, in a transaction of its own, so that no transaction is
// large. They are in the order of revisions, and above those of the file's state, or the same: a Write that failed when it synced may
// have brought the file to its index. Until the next Write the file stays at its index, and Load leaves them out. Those of an attempt that
// was given up have to be dropped before the next. After an error the file holds what it held before.
func (db *DB) PutAhead(rows []*mvcc.Version) (err error) {
	return db.write(func(w *writer) error {
		w.more = true
		if err := w.ahead(); err != nil {
			return err
		}
		if err := w.putRows(slices.Values(rows)); err != nil {
			return err
		}
		return w.finishSums()
	})
}

// ahead notes that the rows which follow the last one are ahead.
func (w *writer) ahead() error {
	if w.facts.ahead {
		return nil
	}
	if index := w.tx.Bucket(bucketMeta).Get(metaIndex); index == nil { // a new file: its sums belong to index 0
		zero := make([]byte, 8)
		if err := errors.Join(w.put(bucketMeta, metaIndex, zero), w.put(bucketMeta, metaTerm, zero)); err != nil {
			return err
		}
	} else if n, err := decodeUint64(index); err != nil || n != w.facts.index {
		return errors.New("no rows are put ahead into a file that others have written")
	}
	w.facts.ahead, w.facts.above = true, 0
	if last, _ := w.tx.Bucket(bucketKey).Cursor().Last(); last != nil {
		w.facts.above = mainOf(last)
	}
	return nil
}

// Ahead tells whether there are rows ahead of the file's state.
func (db *DB) Ahead() (ahead bool, err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	err = db.current.View(func(tx *bbolt.Tx) error {
		f, valid, err := readFacts(tx)
		ahead = valid && f.ahead
		return err
	})
	return ahead, err
}

// DropAhead deletes the last rowsMax of the rows ahead, and answers whether there are more.
func (db *DB) DropAhead(rowsMax int) (more bool, err error) {
	err = db.write(func(w *writer) (err error) {
		if more, err = w.dropAhead(rowsMax); err != nil {
			return err
		}
		w.more = more
		return w.finishSums()
	})
	return more, err
}

// dropAhead looks at the rows before it deletes any: a cursor that meets an emptied page at the end of a bucket turns in circles (bbolt
// 1.5.0).
func (w *writer) dropAhead(rowsMax int) (more bool, err error) {
	if !w.facts.ahead {
		return false, nil
	}
	bucket := w.tx.Bucket(bucketKey)
	cursor := bucket.Cursor()
	var gone [][]byte
	k, v := cursor.Last()
	for ; k != nil && mainOf(k) > w.facts.above && len(gone) < rowsMax; k, v = cursor.Prev() {
		s, err := w.group(k)
		if err != nil {
			return false, err
		}
		s.remove(k, v)
		w.groups[groupOf(k)] = s
		gone = append(gone, bytes.Clone(k))
	}
	more = k != nil && mainOf(k) > w.facts.above
	for _, k := range gone {
		w.copy.touched(bucketKey, k, 0)
		if err := bucket.Delete(k); err != nil {
			return false, err
		}
	}
	w.facts.ahead = more
	return more, nil
}

// mainOf is the main revision of a row.
func mainOf(rowKey []byte) mvcc.Revision { return mvcc.Revision(binary.BigEndian.Uint64(rowKey)) }
