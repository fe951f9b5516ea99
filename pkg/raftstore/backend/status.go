package backend

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Status is what `etcdutl snapshot status` says of a file; the JSON form is its.
type Status struct {
	Hash      uint32 `json:"hash"`      // CRC32C over the names of all buckets, their keys and values
	Revision  int64  `json:"revision"`  // of the last row
	TotalKey  int    `json:"totalKey"`  // keys that are there at that revision
	TotalSize int64  `json:"totalSize"` // bytes
	Version   string `json:"version"`   // of the schema; empty before 3.6
}

// Status reads the whole file. It needs memory for all keys.
func (db *DB) Status() (s Status, err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return Status{}, fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	s.TotalSize = tx.Size()
	if meta := tx.Bucket(bucketMeta); meta != nil {
		s.Version = string(meta.Get(metaStorageVersion))
	}
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	keys := make(map[string]struct{})
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		h.Write(name)
		return b.ForEach(func(k, v []byte) error {
			h.Write(k)
			h.Write(v)
			if !bytes.Equal(name, bucketKey) {
				return nil
			}
			row, err := mvcc.ParseRowKey(k)
			if err != nil {
				return err
			}
			s.Revision = int64(row.Main)
			key, err := keyOf(v)
			if err != nil {
				return fmt.Errorf("row %d.%d: %w", row.Main, row.Sub, err)
			}
			if row.Tombstone {
				delete(keys, string(key))
			} else {
				keys[string(key)] = struct{}{}
			}
			return nil
		})
	})
	s.Hash, s.TotalKey = h.Sum32(), len(keys)
	return s, err
}

// keyOf is the first field of an mvccpb.KeyValue. It aliases b.
func keyOf(b []byte) (key []byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		if num == 1 && typ == protowire.BytesType {
			_, _, at := protowire.ConsumeTag(b)
			key, _ = protowire.ConsumeBytes(b[at:])
		}
		b = b[n:]
	}
	return key, nil
}
