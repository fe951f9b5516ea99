package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"runtime/debug"

	"github.com/cespare/xxhash/v2"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Survey is what a snapshot holds, of ours or of etcd's.
type Survey struct {
	Content
	// Revision is the current one: the highest that a row or a compaction names, 1 in an empty store.
	Revision mvcc.Revision
	// Sum is a hash of the rows that a restore keeps, of the leases, and of users and roles.
	Sum uint64
}

// Survey reads everything, and takes no more than what the server would load. It needs memory for one row. The error is a *CorruptError
// if the file does not hold what was written.
func (db *DB) Survey() (v Survey, err error) {
	v.Revision = 1
	if err := db.surveyBuckets(&v); err != nil {
		return Survey{}, err
	}
	err = db.Load(func(c Content, parts []iter.Seq2[mvcc.Row, error]) error {
		v.Content = c
		if !Readable(c.StorageVersion) {
			return nil
		}
		v.Revision = max(v.Revision, c.CompactScheduled, c.CompactFinished)
		var rows sum
		last := mvcc.RowKey{Main: -1}
		for _, part := range parts {
			for r, err := range part {
				if err != nil {
					return err
				}
				k, err := surveyRow(r, last, &rows)
				if err != nil {
					return err
				}
				last, v.Revision = k, max(v.Revision, k.Main)
				if r.Nameless() { // it stands for a compaction, and does not stay
					v.CompactScheduled = max(v.CompactScheduled, k.Main)
				}
			}
		}
		b := rows.encode(nil)
		for _, l := range c.Leases { // in the order of their IDs
			b = append(b, encodeLease(mvcc.Lease{ID: l.ID, TTL: l.TTL})...)
		}
		if a := c.Auth; a.Enabled() || a.Revision() > 1 { // else it is the sum that programs without auth make
			b = fmt.Appendf(b, "auth %v %d %d", a.Enabled(), a.Revision(), a.Sum())
		}
		v.Sum = xxhash.Sum64(b)
		return nil
	})
	return v, err
}

func (db *DB) surveyBuckets(v *Survey) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	if tx.Bucket(bucketKey) == nil || tx.Bucket(bucketMeta) == nil {
		return &CorruptError{File: db.path, Offset: -1, Reason: "it is a database, but not one of etcd's"}
	}
	return nil
}

func surveyRow(r mvcc.Row, last mvcc.RowKey, rows *sum) (k mvcc.RowKey, err error) {
	if r.Nameless() {
		k, err = mvcc.ParseRowKey(r.Key)
	} else {
		k, err = mvcc.CheckRow(r)
		rows.add(r.Key, r.Value)
	}
	if err == nil && last.Compare(k) >= 0 {
		err = fmt.Errorf("row %d.%d follows %d.%d", k.Main, k.Sub, last.Main, last.Sub)
	}
	return k, err
}

// Restore turns a snapshot, of ours or of etcd's, into what the members of a new cluster begin with. Of b it takes what is written in full
// each time. Rows stay, but for nameless ones; so do leases, users and roles.
func (db *DB) Restore(b Batch) (err error) {
	return db.write(func(w *writer) error {
		if _, err := w.dropAhead(math.MaxInt); err != nil {
			return fmt.Errorf("delete rows ahead of the state: %w", err)
		}
		if err := w.dropNameless(); err != nil {
			return fmt.Errorf("delete rows without a key: %w", err)
		}
		if err := w.meta(b); err != nil {
			return fmt.Errorf("write meta: %w", err)
		}
		return w.finish(b)
	})
}

func (w *writer) dropNameless() error {
	bucket := w.tx.Bucket(bucketKey)
	var gone [][]byte
	err := bucket.ForEach(func(k, v []byte) error {
		if (mvcc.Row{Key: k, Value: v}).Nameless() {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range gone {
		s, err := w.group(k)
		if err != nil {
			return err
		}
		s.remove(k, nil)
		w.groups[groupOf(k)] = s
		if err := bucket.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Mix makes one hash of a survey's and the revision that the members begin at.
func (v Survey) Mix(revision mvcc.Revision) uint64 {
	return xxhash.Sum64(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, v.Sum), uint64(revision)))
}
