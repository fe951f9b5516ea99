package backend

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Check walks the whole file: its pages, bbolt's own invariants, and the rows. It reports what is wrong by offset (-1: no single
// place) and answers what the file holds; the error says why it could not go on.
func (db *DB) Check(report func(offset int64, reason string)) (c Content, err error) {
	if at, reason := locate(db.path); reason != "" {
		report(at, reason)
		return Content{}, nil // bbolt would panic somewhere
	}
	if err := db.checkBolt(report); err != nil {
		return Content{}, err
	}
	err = db.Load(func(got Content, rows []iter.Seq2[mvcc.Row, error]) error {
		c = got
		_, err := mvcc.Load(mvcc.Loader{Index: c.Index, Term: c.Term, Rows: rows, Readers: Readers(), Leases: c.Leases, Alarms: c.Alarms,
			CompactScheduled: c.CompactScheduled, CompactFinished: c.CompactFinished, Auth: c.Auth}, mvcc.Options{})
		return err
	})
	return c, err
}

// checkBolt runs bbolt's own check.
func (db *DB) checkBolt(report func(offset int64, reason string)) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	for err := range tx.Check() {
		report(-1, err.Error())
	}
	return nil
}

// Dump writes the rows of all buckets as text, one a line.
func (db *DB) Dump(w io.Writer) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if _, err := fmt.Fprintf(w, "bucket %s\n", name); err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			_, err := fmt.Fprintf(w, "  %s\n", describeRow(name, k, v))
			return err
		})
	})
}

func describeRow(bucket, k, v []byte) string {
	switch string(bucket) {
	case string(bucketKey):
		row, err := mvcc.ParseRowKey(k)
		if err != nil {
			return fmt.Sprintf("%x: %v", k, err)
		}
		return fmt.Sprintf("%d.%d%s %s", row.Main, row.Sub, map[bool]string{true: "t"}[row.Tombstone], describeKV(v))
	case string(bucketLease):
		l, err := decodeLease(v)
		if err != nil {
			return fmt.Sprintf("%x: %v", k, err)
		}
		return fmt.Sprintf("%x ttl=%d remaining=%d", int64(l.ID), l.TTL, l.Remaining)
	case string(bucketMeta):
		switch {
		case bytes.HasSuffix(k, []byte("CompactRev")):
			rev, err := decodeRevision(v)
			if err == nil {
				return fmt.Sprintf("%s %d", k, rev)
			}
		case len(v) == 8:
			n, _ := decodeUint64(v)
			return fmt.Sprintf("%s %d", k, n)
		}
	case string(bucketAuthUsers):
		return describeUser(v)
	case string(bucketAuthRoles):
		return describeRole(v)
	case string(bucketAuth):
		return fmt.Sprintf("%s %x", k, v)
	case string(bucketShim), string(bucketAlarm):
		return fmt.Sprintf("%x %x", k, v)
	}
	return fmt.Sprintf("%s %s", k, v)
}

func describeKV(v []byte) string {
	kv, err := decodeKV(v)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q create=%d mod=%d version=%d lease=%x value=%d bytes", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version,
		kv.Lease, len(kv.Value))
}
