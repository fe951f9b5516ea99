package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// sum is the count and the hash sum of a set of rows. The order of the rows does not matter, and rows can be taken out again.
type sum struct{ count, hash uint64 }

func (s *sum) add(key, value []byte) {
	s.count++
	s.hash += rowHash(key, value)
}

func (s *sum) remove(key, value []byte) {
	s.count--
	s.hash -= rowHash(key, value)
}

// rowHash ties a value to its key.
func rowHash(key, value []byte) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return (bits.RotateLeft64(xxhash.Sum64(key), 31)*odd ^ xxhash.Sum64(value)) * odd
}

func (s sum) encode(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, s.count), s.hash)
}

func decodeSum(b []byte) (sum, error) {
	if len(b) != 16 {
		return sum{}, errRowShort
	}
	return sum{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// groupRevisions is the number of main revisions whose rows share one sum: it bounds how well a flipped bit can be located, and how
// many sums there are.
const groupRevisions = 1024

func groupOf(rowKey []byte) uint64 { return binary.BigEndian.Uint64(rowKey) / groupRevisions }

func groupKey(group uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'g'}, group) }

var errFactsSum = errors.New("the facts about the file have a wrong checksum")

// The size of the facts. An older program, which would take rows ahead for the state's, refuses the longer ones.
const (
	factsBytes      = 40
	factsAheadBytes = 48
)

// facts says what the sums belong to.
type facts struct {
	index uint64
	hash  uint64        // the state's rolling hash
	small sum           // of the rows of all buckets but key and shim
	ahead bool          // there are rows of a later state,
	above mvcc.Revision // with main revisions above this one
}

func (f facts) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, f.index)
	b = binary.BigEndian.AppendUint64(b, f.hash)
	b = f.small.encode(b)
	if f.ahead {
		b = binary.BigEndian.AppendUint64(b, uint64(f.above))
	}
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
}

func decodeFacts(b []byte) (f facts, err error) {
	if len(b) != factsBytes && len(b) != factsAheadBytes {
		return facts{}, errRowShort
	}
	b, check := b[:len(b)-8], b[len(b)-8:]
	if binary.BigEndian.Uint64(check) != xxhash.Sum64(b) {
		return facts{}, errFactsSum
	}
	f.index, f.hash = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if len(b) > factsBytes-8 {
		f.ahead, f.above = true, mvcc.Revision(binary.BigEndian.Uint64(b[32:]))
	}
	f.small, err = decodeSum(b[16:32])
	return f, err
}

// readFacts is false if there are none that belong to what the file holds now.
func readFacts(tx *bbolt.Tx) (facts, bool, error) {
	b, meta := tx.Bucket(bucketShim), tx.Bucket(bucketMeta)
	if b == nil || meta == nil {
		return facts{}, false, nil
	}
	v := b.Get(shimFacts)
	if v == nil {
		return facts{}, false, nil
	}
	f, err := decodeFacts(v)
	if err != nil {
		return facts{}, false, err
	}
	index, err := decodeUint64(meta.Get(metaIndex))
	return f, err == nil && index == f.index, nil
}

// countAll makes the sums of what the file holds.
func countAll(tx *bbolt.Tx) (small sum, groups map[uint64]sum, err error) {
	groups = make(map[uint64]sum)
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if bytes.Equal(name, bucketShim) {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if !bytes.Equal(name, bucketKey) {
				small.add(k, v)
				return nil
			}
			g := groups[groupOf(k)]
			g.add(k, v)
			groups[groupOf(k)] = g
			return nil
		})
	})
	return small, groups, err
}
