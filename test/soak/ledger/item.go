package ledger

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// item is a version of a key, its value hashed.
type item struct {
	create, mod, version, lease int64
	value                       uint64
}

func itemOf(kv *mvccpb.KeyValue) item {
	return item{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, xxhash.Sum64(kv.Value)}
}

// sum is a hash of a version with its key.
func (it item) sum(key string) uint64 {
	var b [48]byte
	for i, n := range [...]uint64{xxhash.Sum64String(key), uint64(it.create), uint64(it.mod), uint64(it.version), uint64(it.lease), it.value} {
		binary.LittleEndian.PutUint64(b[8*i:], n)
	}
	return xxhash.Sum64(b[:])
}

// Digest is what a whole list says, short enough to be kept: how many keys, and
// the sum of their hashes, in which each can be added and taken away.
type Digest struct {
	Count int64  `json:"count"`
	Sum   uint64 `json:"sum"`
	// Unordered: a key did not come behind the one before it.
	Unordered bool `json:"unordered,omitempty"`

	last string
}

// Add takes up the next key of the list.
func (d *Digest) Add(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	d.Unordered = d.Unordered || d.Count > 0 && key <= d.last
	d.last = key
	d.add(itemOf(kv).sum(key))
}

func (d *Digest) add(sum uint64) { d.Count++; d.Sum += sum }
func (d *Digest) cut(sum uint64) { d.Count--; d.Sum -= sum }

// stream is a hash of events in their order.
type stream struct {
	Events int64  `json:"events"`
	Hash   uint64 `json:"hash"`
}

func (s *stream) add(sum uint64) {
	const prime = 0x9e3779b185ebca87
	s.Events++
	s.Hash = (s.Hash ^ sum) * prime
}

// eventSum is a hash of an event; prev is the hash of the version before it, 0
// if there was none or nobody asked.
func eventSum(deleted bool, sum, prev uint64) uint64 {
	if deleted {
		sum = ^sum
	}
	return sum + prev*3
}
