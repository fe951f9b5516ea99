package backend

import (
	"bytes"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// deadReadShare is what the bytes of a leaf that is read count beside those that are written: reading costs so many times less.
const deadReadShare = 8

// delete deletes the first of the dead rows, and answers how many it got through.
func (w *writer) delete(db *DB, b Batch) (n int, err error) {
	if n, err = w.partOfDead(db, b); err != nil {
		return 0, err
	}
	there, err := w.find(b.Dead[:n])
	if err != nil {
		return 0, err
	}
	bucket := w.tx.Bucket(bucketKey)
	var key []byte
	for _, dead := range there {
		key = dead.Append(key[:0])
		w.copy.touched(bucketKey, key, 0)
		if err := bucket.Delete(key); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// partOfDead answers how many of the dead rows the transaction takes. What that costs is not the rows: a leaf that loses some is written
// again with those that stay, and one that loses all is free without being written. It reads the leaves, so that bbolt finds them in the
// page cache: its own reads are faults of the mapping.
func (w *writer) partOfDead(db *DB, b Batch) (n int, err error) {
	n = len(b.Dead)
	if b.DeadMax > 0 {
		n = min(n, b.DeadMax)
	}
	root := w.tx.Bucket(bucketKey).Root()
	if b.DeadBytesMax == 0 || n == 0 || root == 0 {
		return n, nil
	}
	f := &db.finder // of what the file holds before the transaction
	f.file, f.path, f.pageBytes, f.fileBytes = db.current.random, db.path, int64(db.pageSize()), db.Size()
	f.restart(uint64(root))
	var cost int64
	var leaf leafPlace
	var dead int64 // rows of leaf
	key := make([]byte, 0, rowKeyBytes+1)
	for i, row := range b.Dead[:n] {
		key = row.Append(key[:0])
		if leaf.id != 0 && leaf.below != nil && bytes.Compare(key, leaf.below) < 0 {
			dead++
			continue
		}
		place, err := f.descend(key)
		if err != nil {
			return 0, err
		}
		if place.id != leaf.id {
			if cost += f.costOf(dead); cost >= b.DeadBytesMax {
				return i, nil
			}
			if err := f.read(&f.leaf, place.id, place.pages); err != nil {
				return 0, err
			}
			at := int64(place.id) * f.pageBytes
			f.advise(at+int64(len(f.leaf.b)), at+f.leaf.bytes)
			dead = 0
		}
		leaf, dead = place, dead+1
	}
	return n, nil
}

// costOf is what it costs, in bytes, to take so many rows from the leaf that was read last.
func (f *pageFinder) costOf(rows int64) int64 {
	if f.leaf.id == 0 {
		return 0
	}
	count := max(int64(f.leaf.count()), 1)
	return f.leaf.bytes*max(count-rows, 0)/count + f.leaf.bytes/deadReadShare
}

// find answers which of the dead rows are there, and takes them out of the sums. It walks from row to row, as neighbours mostly die
// together, before any is deleted: a cursor that meets an emptied page at the end of a bucket turns in circles (bbolt 1.5.0).
func (w *writer) find(dead []mvcc.RowKey) (there []mvcc.RowKey, err error) {
	cursor := w.tx.Bucket(bucketKey).Cursor()
	var key, k, v []byte
	for _, row := range dead {
		key = row.Append(key[:0])
		if k != nil && bytes.Compare(k, key) < 0 {
			k, v = cursor.Next()
		}
		if k == nil || bytes.Compare(k, key) < 0 {
			k, v = cursor.Seek(key)
		}
		if !bytes.Equal(k, key) {
			continue
		}
		s, err := w.group(key)
		if err != nil {
			return nil, err
		}
		s.remove(key, v)
		w.groups[groupOf(key)] = s
		there = append(there, row)
	}
	return there, nil
}
