package mvcc

import (
	"sync/atomic"
	"unsafe"
)

// Revision is etcd's main revision: one per writing command, dense, equal on
// all members. A fresh store is at 1.
type Revision int64

// Version is one version of one key. All but the link to the version before it
// and the place of its encoding is immutable once it was published in a View.
//
// A version costs 80 bytes and one slice with the encoded mvccpb.KeyValue; key
// and value alias that slice. When it has left memory (see evict.go) a stub
// stands in the place of the slice.
type Version struct {
	body   atomic.Pointer[byte]    // the first byte of the encoding, or of its stub
	prev   atomic.Pointer[Version] // cut by compaction
	mod    Revision
	create Revision // 0: a tombstone
	num    int64
	lease  LeaseID

	size     uint32 // of the encoding
	sub      uint32
	keyLen   uint32
	valueOff uint32        // of the first byte of the value; the length of the fields before it if there is none
	flags    uint32        // of the goroutine that applies, see flagDead
	cold     atomic.Uint32 // 1: the clock came by and nobody has read it since
}

// Flags of a version. Only the apply goroutine reads or writes them.
const (
	// flagDead: compaction has removed it.
	flagDead = 1 << iota
	// flagRowsBefore: a checkpoint may have written versions before it.
	flagRowsBefore
	// flagRowDiffers: its row means the same, but is not its encoding.
	flagRowDiffers
)

// setKV gives a new version its encoding.
func (v *Version) setKV(kv []byte) {
	v.body.Store(unsafe.SliceData(kv))
	v.size = uint32(len(kv))
}

// setStub lets its encoding leave memory. Readers may be at it: the size, which
// stays what it is, is not written again.
func (v *Version) setStub(kv []byte) {
	v.body.Store(unsafe.SliceData(v.newStub(kv)))
}

// KV is the encoded mvccpb.KeyValue, byte for byte what etcd sends for this
// version in a range or an event; nil if it has left memory. A tombstone holds
// the key and the mod revision. Never to be modified.
func (v *Version) KV() []byte { return v.Encoding().Bytes() }

// Encoding is KV, or where to find it.
func (v *Version) Encoding() Encoding { return Encoding{at: v.body.Load(), n: v.size} }

// Size is the length of KV, in memory or not.
func (v *Version) Size() int { return int(v.size) }

// Key aliases KV. It is always in memory.
func (v *Version) Key() []byte {
	off := 1 + uvarintLen(uint64(v.keyLen))
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(v.body.Load()), off)), v.keyLen)
}

// Value aliases KV. Nil if it is empty, or has left memory.
func (v *Version) Value() []byte { return v.valueOf(v.KV()) }

// valueOf is the value in the encoding of the version.
func (v *Version) valueOf(kv []byte) []byte {
	end := v.valueEnd()
	if v.valueOff >= end || kv == nil {
		return nil
	}
	return kv[v.valueOff:end:end]
}

// ValueLen is the length of the value, in memory or not.
func (v *Version) ValueLen() int {
	if end := v.valueEnd(); v.valueOff < end {
		return int(end - v.valueOff)
	}
	return 0
}

// Mod is the main revision the version was written in.
func (v *Version) Mod() Revision { return v.mod }

// Sub counts the changes before this one in the same main revision.
func (v *Version) Sub() int64 { return int64(v.sub) }

// Create is the main revision the key was created in; 0 for a tombstone.
func (v *Version) Create() Revision { return v.create }

// Num is etcd's version counter: 1 at creation, 0 for a tombstone.
func (v *Version) Num() int64 { return v.num }

// Lease is the lease the key is attached to, 0 for none.
func (v *Version) Lease() LeaseID { return v.lease }

// Tombstone tells whether the version is a deletion.
func (v *Version) Tombstone() bool { return v.create == 0 }

// Prev is the version before this one, tombstones included. It is nil for the
// first one, and once compaction has cut it off.
func (v *Version) Prev() *Version { return v.prev.Load() }

// KeyOnlyKV is the encoded mvccpb.KeyValue without the value, as a range with
// keys_only answers it. The lease is in it only if it is wanted: etcd gives it
// when the range is sorted by value.
func (v *Version) KeyOnlyKV(withLease bool) []byte {
	kv := appendBytes(nil, tagKey, v.Key())
	kv = appendInt(kv, tagCreate, int64(v.create))
	kv = appendInt(kv, tagMod, int64(v.mod))
	kv = appendInt(kv, tagNum, v.num)
	if withLease {
		kv = appendInt(kv, tagLease, int64(v.lease))
	}
	return kv
}

// metaEnd is where the fields before the value end.
func (v *Version) metaEnd() uint32 {
	end := v.valueEnd()
	if v.valueOff >= end {
		return end
	}
	return v.valueOff - 1 - uint32(uvarintLen(uint64(end-v.valueOff)))
}

// valueEnd is where the value ends and the lease begins.
func (v *Version) valueEnd() uint32 {
	end := v.size
	if v.lease != 0 {
		end -= 1 + uint32(uvarintLen(uint64(v.lease)))
	}
	return end
}

// at answers the version of the key that is visible at the revision: the
// newest one that was written at or before it, or nil if the key did not exist
// then. The receiver is the newest version of the key.
func (v *Version) at(rev Revision) *Version {
	for v != nil && v.mod > rev {
		v = v.prev.Load()
	}
	if v == nil || v.Tombstone() {
		return nil
	}
	return v
}

// weight is what the version adds to the sums of the index.
func (v *Version) weight() int {
	if v.Tombstone() {
		return 0
	}
	return 1
}

// Event is one change of one key.
type Event struct {
	Version *Version
	// Prev is the version that was visible just before the event's revision:
	// nil on create, and when it was compacted.
	Prev *Version
}

// prevOf answers the version that a watcher with prev_kv is shown: what the
// key was before the main revision of v.
func prevOf(v *Version) *Version {
	if v.create == v.mod {
		return nil
	}
	p := v.prev.Load()
	for p != nil && p.mod == v.mod {
		p = p.prev.Load()
	}
	if p == nil || p.Tombstone() {
		return nil
	}
	return p
}
