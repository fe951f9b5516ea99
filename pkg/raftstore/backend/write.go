package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Batch is what turns the checkpoint before into the next one.
type Batch struct {
	Index, Term uint64
	Hash        uint64 // the state's rolling hash at Index

	Puts          iter.Seq[*mvcc.Version] // in the order of revisions
	Dead          []mvcc.RowKey           // some may not be there
	LeasesPut     []mvcc.Lease
	LeasesDeleted []mvcc.LeaseID

	// All below is written in full each time.
	CompactScheduled, CompactFinished mvcc.Revision // -1: never
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
	facts  facts
	groups map[uint64]sum
}

// Write writes the batch in one transaction. After an error the file holds what it held before.
func (db *DB) Write(b Batch) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	return db.update(func(tx *bbolt.Tx) error {
		w, err := newWriter(tx)
		if err != nil {
			return err
		}
		if err := w.rows(b); err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
		if err := w.leases(b); err != nil {
			return fmt.Errorf("write leases: %w", err)
		}
		if err := w.meta(b); err != nil {
			return fmt.Errorf("write meta: %w", err)
		}
		return w.finish(b)
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

func (w *writer) rows(b Batch) error {
	bucket := w.tx.Bucket(bucketKey)
	// Before anything is deleted: a cursor that meets an emptied page at the end of a bucket turns in circles (bbolt 1.5.0).
	last, _ := bucket.Cursor().Last()
	last = bytes.Clone(last)
	var key []byte // bbolt copies it
	for _, dead := range b.Dead {
		key = dead.Append(key[:0])
		value := bucket.Get(key)
		if value == nil {
			continue
		}
		s, err := w.group(key)
		if err != nil {
			return err
		}
		s.remove(key, value)
		w.groups[groupOf(key)] = s
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	bucket.FillPercent = 1 // rows are appended, as revisions grow, and never become larger
	for v := range b.Puts {
		key = v.RowKey().Append(key[:0])
		s, err := w.group(key)
		if err != nil {
			return err
		}
		if bytes.Compare(key, last) <= 0 {
			if old := bucket.Get(key); old != nil {
				s.remove(key, old)
			}
		}
		s.add(key, v.RowValue())
		w.groups[groupOf(key)] = s
		if err := bucket.Put(key, v.RowValue()); err != nil {
			return err
		}
	}
	return nil
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
	return b.Put(key, value)
}

func (w *writer) delete(bucket, key []byte) error {
	b := w.tx.Bucket(bucket)
	if old := b.Get(key); old != nil {
		w.facts.small.remove(key, old)
	}
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
		if err := w.delete(bucket, k); err != nil {
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
		if err := w.delete(bucketLease, encodeLeaseID(id)); err != nil {
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

// finish writes the sums.
func (w *writer) finish(b Batch) error {
	shim := w.tx.Bucket(bucketShim)
	for g, s := range w.groups {
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
	w.facts.index, w.facts.hash = b.Index, b.Hash
	return shim.Put(shimFacts, w.facts.encode())
}
