package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Batch is what turns the checkpoint before into the next one.
type Batch struct {
	Index, Term uint64
	Hash        uint64 // the state's rolling hash at Index

	Puts          iter.Seq[*mvcc.Version] // in the order of revisions; nil: none
	Dead          []mvcc.RowKey           // in the order of revisions; some may not be there
	DeadMax       int                     // how many of Dead are deleted at most; 0: no bound
	DeadBytesMax  int64                   // how much of the file is read and written for that, about; 0: no bound
	LeasesPut     []mvcc.Lease
	LeasesDeleted []mvcc.LeaseID
	Auth          auth.Delta

	// All below is written in full each time.
	CompactScheduled, CompactFinished mvcc.Revision // -1: never; the second is not written while some of Dead are left
	ConfState                         []byte        // JSON
	Members                           map[string][]byte
	MembersRemoved                    []string
	ClusterVersion                    string // "" is not written
	Downgrade                         []byte // JSON; nil is not written
	Alarms                            [][]byte
}

// writer is one Write under way.
type writer struct {
	tx     *bbolt.Tx
	copy   *Defragmentation // has to know each row that is changed; nil: none is under way
	facts  facts
	groups map[uint64]sum
	more   bool // others follow soon
}

// Write writes the batch in one transaction, Puts before Dead, and answers how many of Dead it got through, within DeadMax and
// DeadBytesMax. The others may be deleted by later batches, of the same index or another, in the order of revisions: they are dead
// whether they are in the file or not. If it raises the index, rows that were put ahead are part of the state from now on. After an error
// the file holds what it held before.
func (db *DB) Write(b Batch) (dead int, err error) {
	err = db.write(func(w *writer) (err error) {
		if err := w.putRows(b.Puts); err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
		if dead, err = w.delete(db, b); err != nil {
			return fmt.Errorf("delete dead rows: %w", err)
		}
		if w.more = dead < len(b.Dead); w.more {
			b.CompactFinished = mvcc.NeverCompacted
		}
		if err := w.leases(b); err != nil {
			return fmt.Errorf("write leases: %w", err)
		}
		if err := w.auth(b.Auth); err != nil {
			return fmt.Errorf("write users and roles: %w", err)
		}
		if err := w.meta(b); err != nil {
			return fmt.Errorf("write meta: %w", err)
		}
		return w.finish(b)
	})
	return dead, err
}

// write is one transaction of a writer. After an error the file holds what it held before.
func (db *DB) write(do func(*writer) error) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	return db.update(func(tx *bbolt.Tx) error {
		w, err := newWriter(tx)
		if err != nil {
			return err
		}
		w.copy = db.defragmentation
		err = do(w)
		db.more = w.more
		db.current.NoFreelistSync = w.more && db.leavesFreelistOut()
		return err
	})
}

func newWriter(tx *bbolt.Tx) (*writer, error) {
	w := &writer{tx: tx, groups: make(map[uint64]sum)}
	f, valid, err := readFacts(tx)
	if err != nil {
		return nil, err
	}
	if valid {
		w.facts = f
		return w, nil
	}
	if err := tx.DeleteBucket(bucketShim); err != nil {
		return nil, err
	}
	if _, err := tx.CreateBucket(bucketShim); err != nil {
		return nil, err
	}
	w.facts.small, w.groups, err = countAll(tx)
	return w, err
}

// group is the sum of the group a row belongs to.
func (w *writer) group(rowKey []byte) (sum, error) {
	g := groupOf(rowKey)
	if s, ok := w.groups[g]; ok {
		return s, nil
	}
	v := w.tx.Bucket(bucketShim).Get(groupKey(g))
	if v == nil {
		return sum{}, nil
	}
	return decodeSum(v)
}

// putRows writes new rows. Where the file took a write that has failed, some of them are there.
func (w *writer) putRows(rows iter.Seq[*mvcc.Version]) error {
	if rows == nil {
		return nil
	}
	bucket := w.tx.Bucket(bucketKey)
	bucket.FillPercent = 1 // rows are appended, as revisions grow, and never become larger
	last, _ := bucket.Cursor().Last()
	last = bytes.Clone(last)
	var key []byte // bbolt copies it
	for v := range rows {
		key = v.RowKey().Append(key[:0])
		if bytes.Compare(key, last) <= 0 {
			old := bucket.Get(key)
			if k := v.RowKey(); old == nil && w.facts.ahead && k.Main <= w.facts.above && !k.Tombstone {
				return fmt.Errorf("row %d.%d is no part of the state, and not ahead of revision %d", k.Main, k.Sub, w.facts.above)
			}
			if old != nil {
				s, err := w.group(key)
				if err != nil {
					return err
				}
				s.remove(key, old)
				w.groups[groupOf(key)] = s
			}
		}
		if err := w.putRow(bucket, key, v.RowValue()); err != nil {
			return err
		}
	}
	return nil
}

// putRow writes a row of bucket key that the sums do not have.
func (w *writer) putRow(bucket *bbolt.Bucket, key, value []byte) error {
	s, err := w.group(key)
	if err != nil {
		return err
	}
	s.add(key, value)
	w.groups[groupOf(key)] = s
	w.copy.touched(bucketKey, key, len(value))
	return bucket.Put(key, value)
}

// put writes a row outside bucket key.
func (w *writer) put(bucket, key, value []byte) error {
	b := w.tx.Bucket(bucket)
	if old := b.Get(key); old != nil {
		if bytes.Equal(old, value) {
			return nil
		}
		w.facts.small.remove(key, old)
	}
	w.facts.small.add(key, value)
	w.copy.touched(bucket, key, len(value))
	return b.Put(key, value)
}

func (w *writer) drop(bucket, key []byte) error {
	b := w.tx.Bucket(bucket)
	if old := b.Get(key); old != nil {
		w.facts.small.remove(key, old)
	}
	w.copy.touched(bucket, key, 0)
	return b.Delete(key)
}

// replace makes rows all that a bucket holds.
func (w *writer) replace(bucket []byte, rows map[string][]byte) error {
	var gone [][]byte
	err := w.tx.Bucket(bucket).ForEach(func(k, _ []byte) error {
		if _, ok := rows[string(k)]; !ok {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range gone {
		if err := w.drop(bucket, k); err != nil {
			return err
		}
	}
	for k, v := range rows {
		if err := w.put(bucket, []byte(k), v); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) leases(b Batch) error {
	for _, id := range b.LeasesDeleted {
		if err := w.drop(bucketLease, encodeLeaseID(id)); err != nil {
			return err
		}
	}
	for _, l := range b.LeasesPut {
		if err := w.put(bucketLease, encodeLeaseID(l.ID), encodeLease(l)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) meta(b Batch) error {
	meta := map[string][]byte{
		string(metaIndex):          binary.BigEndian.AppendUint64(nil, b.Index),
		string(metaTerm):           binary.BigEndian.AppendUint64(nil, b.Term),
		string(metaConfState):      b.ConfState,
		string(metaStorageVersion): []byte(StorageVersionOf(b.ClusterVersion)),
	}
	if b.CompactScheduled >= 0 {
		meta[string(metaScheduledCompact)] = encodeRevision(b.CompactScheduled)
	}
	if b.CompactFinished >= 0 {
		meta[string(metaFinishedCompact)] = encodeRevision(b.CompactFinished)
	}
	cluster := make(map[string][]byte)
	if b.ClusterVersion != "" {
		cluster[string(clusterVersion)] = []byte(b.ClusterVersion)
	}
	if b.Downgrade != nil {
		cluster[string(clusterDowngrade)] = b.Downgrade
	}
	removed := make(map[string][]byte)
	for _, id := range b.MembersRemoved {
		removed[id] = removedMark
	}
	alarms := make(map[string][]byte)
	for _, a := range b.Alarms {
		alarms[string(a)] = []byte{}
	}
	for _, e := range []struct {
		bucket []byte
		rows   map[string][]byte
	}{{bucketCluster, cluster}, {bucketMembers, b.Members}, {bucketMembersRemoved, removed}, {bucketAlarm, alarms}} {
		if err := w.replace(e.bucket, e.rows); err != nil {
			return err
		}
	}
	for k, v := range meta { // not replaced: meta may hold keys of etcd's that we do not know
		if err := w.put(bucketMeta, []byte(k), v); err != nil {
			return err
		}
	}
	return nil
}

// finish brings the file to the batch's index. What was ahead of a former one is part of the state now.
func (w *writer) finish(b Batch) error {
	if b.Index > w.facts.index {
		w.facts.ahead = false
	}
	w.facts.index, w.facts.hash = b.Index, b.Hash
	return w.finishSums()
}

// finishSums writes the sums.
func (w *writer) finishSums() error {
	shim := w.tx.Bucket(bucketShim)
	for g, s := range w.groups {
		w.copy.touched(bucketShim, groupKey(g), 0)
		var err error
		if s.count == 0 {
			err = shim.Delete(groupKey(g))
		} else {
			err = shim.Put(groupKey(g), s.encode(nil))
		}
		if err != nil {
			return fmt.Errorf("write sums: %w", err)
		}
	}
	w.copy.touched(bucketShim, shimFacts, 0)
	return shim.Put(shimFacts, w.facts.encode())
}
