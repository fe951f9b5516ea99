package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The tags of mvccpb.KeyValue: field number and wire type. All fit one byte.
const (
	tagKey    = 1<<3 | 2
	tagCreate = 2<<3 | 0
	tagMod    = 3<<3 | 0
	tagNum    = 4<<3 | 0
	tagValue  = 5<<3 | 2
	tagLease  = 6<<3 | 0
)

// uvarintLen is the number of bytes of an unsigned varint.
func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

func intFieldLen(x int64) int {
	if x == 0 {
		return 0
	}
	return 1 + uvarintLen(uint64(x))
}

func bytesFieldLen(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + uvarintLen(uint64(n)) + n
}

func appendInt(dst []byte, tag byte, x int64) []byte {
	if x == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tag), uint64(x))
}

func appendBytes(dst []byte, tag byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
	return append(dst, b...)
}

// newPut makes a version of a key with a value: one allocation for the version
// and one for the encoding. The link to the previous version is the caller's.
func newPut(key, value []byte, create, mod Revision, sub uint32, num int64, lease LeaseID) *Version {
	n := bytesFieldLen(len(key)) + intFieldLen(int64(create)) + intFieldLen(int64(mod)) +
		intFieldLen(num) + bytesFieldLen(len(value)) + intFieldLen(int64(lease))
	kv := make([]byte, 0, n)
	kv = appendBytes(kv, tagKey, key)
	kv = appendInt(kv, tagCreate, int64(create))
	kv = appendInt(kv, tagMod, int64(mod))
	kv = appendInt(kv, tagNum, num)
	kv = appendBytes(kv, tagValue, value)
	valueOff := len(kv) - len(value)
	kv = appendInt(kv, tagLease, int64(lease))
	v := &Version{
		mod: mod, create: create, num: num, lease: lease,
		sub: sub, keyLen: uint32(len(key)), valueOff: uint32(valueOff),
	}
	v.setKV(kv)
	return v
}

// newTombstone makes the version of a key that is deleted.
func newTombstone(key []byte, mod Revision, sub uint32) *Version {
	kv := make([]byte, 0, bytesFieldLen(len(key))+intFieldLen(int64(mod)))
	kv = appendBytes(kv, tagKey, key)
	kv = appendInt(kv, tagMod, int64(mod))
	v := &Version{mod: mod, sub: sub, keyLen: uint32(len(key)), valueOff: uint32(len(kv))}
	v.setKV(kv)
	return v
}

// parsePut makes a version of a row of the key bucket. The value is copied, or
// with evicted, if it is worth it, left where it is.
// What etcd wrote is in the canonical form already; anything else is decoded
// and encoded again.
func parsePut(row RowKey, value []byte, evicted bool) (*Version, error) {
	v := &Version{mod: row.Main, sub: uint32(row.Sub)}
	if parseCanonical(v, value) {
		if v.size = uint32(len(value)); evicted && v.evictable() {
			v.setStub(value)
			return v, nil
		}
		v.setKV(append(make([]byte, 0, len(value)), value...))
		return v, nil
	}
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(value, &kv); err != nil {
		return nil, fmt.Errorf("decode key value of revision %d.%d: %w", row.Main, row.Sub, err)
	}
	if err := checkRow(row, len(kv.Key), Revision(kv.CreateRevision), Revision(kv.ModRevision)); err != nil {
		return nil, err
	}
	v = newPut(kv.Key, kv.Value, Revision(kv.CreateRevision), row.Main, uint32(row.Sub), kv.Version, LeaseID(kv.Lease))
	v.flags |= flagRowDiffers
	return v, nil
}

// parseTombstone makes a version of a tombstone row, whose value holds the key
// only.
func parseTombstone(row RowKey, value []byte) (*Version, error) {
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(value, &kv); err != nil {
		return nil, fmt.Errorf("decode tombstone of revision %d.%d: %w", row.Main, row.Sub, err)
	}
	if len(kv.Key) == 0 {
		return nil, fmt.Errorf("tombstone of revision %d.%d has no key", row.Main, row.Sub)
	}
	return newTombstone(kv.Key, row.Main, uint32(row.Sub)), nil
}

func checkRow(row RowKey, keyLen int, create, mod Revision) error {
	switch {
	case keyLen == 0:
		return fmt.Errorf("row of revision %d.%d has no key", row.Main, row.Sub)
	case mod != row.Main:
		return fmt.Errorf("row of revision %d.%d holds mod revision %d", row.Main, row.Sub, mod)
	case create <= 0 || create > mod:
		return fmt.Errorf("row of revision %d.%d holds create revision %d", row.Main, row.Sub, create)
	}
	return nil
}

// parseCanonical reads a KeyValue that is written as newPut writes it, and
// fills the version's fields. It answers false for any other.
func parseCanonical(v *Version, b []byte) bool {
	last := byte(0)
	seenMod := false
	for off := 0; off < len(b); {
		tag := b[off]
		if tag <= last || tag&0x80 != 0 {
			return false
		}
		last = tag
		x, n := protowire.ConsumeVarint(b[off+1:])
		if n < 0 || n != uvarintLen(x) || x == 0 {
			return false
		}
		off += 1 + n
		switch tag {
		case tagKey, tagValue:
			if x > uint64(len(b)-off) {
				return false
			}
			if tag == tagKey {
				v.keyLen = uint32(x)
			} else {
				v.valueOff = uint32(off)
			}
			off += int(x)
		case tagCreate:
			v.create = Revision(x)
		case tagMod:
			if Revision(x) != v.mod {
				return false
			}
			seenMod = true
		case tagNum:
			v.num = int64(x)
		case tagLease:
			v.lease = LeaseID(x)
		default:
			return false
		}
	}
	if v.valueOff == 0 {
		v.valueOff = uint32(len(b))
		if v.lease != 0 {
			v.valueOff -= uint32(intFieldLen(int64(v.lease)))
		}
	}
	return seenMod && v.keyLen > 0 && v.create > 0 && v.create <= v.mod
}

// RowKey names a row of etcd's key bucket.
type RowKey struct {
	Main      Revision
	Sub       int64
	Tombstone bool
}

// RowKey names the row of the version.
func (v *Version) RowKey() RowKey {
	return RowKey{Main: v.mod, Sub: int64(v.sub), Tombstone: v.Tombstone()}
}

// RowValue is what etcd keeps in the row of the version: KV, or for a
// tombstone the key alone. Aliases KV; nil if that has left memory.
func (v *Version) RowValue() []byte {
	kv := v.KV()
	if n := v.rowValueLen(); n < len(kv) {
		return kv[:n:n]
	}
	return kv
}

// rowValueLen is the length of RowValue, in memory or not.
func (v *Version) rowValueLen() int {
	if v.Tombstone() {
		return bytesFieldLen(int(v.keyLen))
	}
	return int(v.size)
}

// RowSize is the number of bytes the row takes in bbolt.
func (v *Version) RowSize() int64 {
	n := rowOverhead + rowKeyLen + v.rowValueLen()
	if v.Tombstone() {
		n++
	}
	return int64(n)
}

// rowKeyLen is the length of a row key without the mark of a tombstone.
const rowKeyLen = 8 + 1 + 8

// Append appends the key in etcd's form: 8 bytes main revision (big endian),
// '_', 8 bytes sub revision, and 't' for a tombstone.
func (k RowKey) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.Main))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.Sub))
	if k.Tombstone {
		dst = append(dst, 't')
	}
	return dst
}

// ParseRowKey is the inverse of RowKey.Append.
func ParseRowKey(b []byte) (RowKey, error) {
	n := len(b)
	if (n != rowKeyLen && n != rowKeyLen+1) || b[8] != '_' || (n > rowKeyLen && b[rowKeyLen] != 't') {
		return RowKey{}, fmt.Errorf("malformed row key %x", b)
	}
	k := RowKey{
		Main:      Revision(binary.BigEndian.Uint64(b)),
		Sub:       int64(binary.BigEndian.Uint64(b[9:])),
		Tombstone: n > rowKeyLen,
	}
	if k.Main < 0 || k.Sub < 0 || k.Sub > int64(^uint32(0)) {
		return RowKey{}, fmt.Errorf("row key %x is out of range", b)
	}
	return k, nil
}

// Compare orders rows as bucket key does, by revision.
func (k RowKey) Compare(o RowKey) int {
	if c := cmp.Compare(k.Main, o.Main); c != 0 {
		return c
	}
	return cmp.Compare(k.Sub, o.Sub)
}

func (k RowKey) less(o RowKey) bool {
	return k.Main < o.Main || k.Main == o.Main && k.Sub < o.Sub
}
