package backend

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// Hash is what Maintenance.Hash answers: CRC32C over bucket names, keys and values, without the rows that members may differ in.
// Ours differ with the pace of checkpoints, and are left out too.
func (db *DB) Hash() (hash uint32, err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return 0, fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if bytes.Equal(name, bucketShim) {
			return nil
		}
		h.Write(name)
		return b.ForEach(func(k, v []byte) error {
			if bytes.Equal(name, bucketMeta) && (bytes.Equal(k, metaIndex) || bytes.Equal(k, metaTerm) || bytes.Equal(k, metaStorageVersion)) {
				return nil
			}
			h.Write(k)
			h.Write(v)
			return nil
		})
	})
	return h.Sum32(), err
}
