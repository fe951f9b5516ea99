package request

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// wire is what is left of an encoded message.
type wire []byte

// Field tags as they stand on the wire: number and wire type in one.
const (
	varint1  = 1 << 3
	varint2  = 2 << 3
	varint3  = 3 << 3
	varint4  = 4 << 3
	varint5  = 5 << 3
	varint6  = 6 << 3
	varint7  = 7 << 3
	varint8  = 8 << 3
	varint9  = 9 << 3
	varint10 = 10 << 3
	varint11 = 11 << 3
	varint12 = 12 << 3
	varint13 = 13 << 3
	bytes1   = 1<<3 | 2
	bytes2   = 2<<3 | 2
	bytes3   = 3<<3 | 2
	bytes7   = 7<<3 | 2
	bytes64  = 64<<3 | 2
)

// next reads one field: its tag and, by wire type, its number or its bytes. It
// fails on anything but those two wire types.
func (w *wire) next() (tag, v uint64, b []byte, ok bool) {
	tag, n := protowire.ConsumeVarint(*w)
	if n < 0 {
		return 0, 0, nil, false
	}
	*w = (*w)[n:]
	switch protowire.Type(tag & 7) {
	case protowire.VarintType:
		v, n = protowire.ConsumeVarint(*w)
	case protowire.BytesType:
		b, n = protowire.ConsumeBytes(*w)
		b = b[:len(b):len(b)]
	default:
		return 0, 0, nil, false
	}
	if n < 0 {
		return 0, 0, nil, false
	}
	*w = (*w)[n:]
	return tag, v, b, true
}

// Range decodes a RangeRequest.
func Range(b []byte, r *pb.RangeRequest) bool {
	for w := wire(b); len(w) > 0; {
		tag, v, raw, ok := w.next()
		if !ok {
			return false
		}
		switch tag {
		case bytes1:
			r.Key = raw
		case bytes2:
			r.RangeEnd = raw
		case varint3:
			r.Limit = int64(v)
		case varint4:
			r.Revision = int64(v)
		case varint5:
			r.SortOrder = pb.RangeRequest_SortOrder(v)
		case varint6:
			r.SortTarget = pb.RangeRequest_SortTarget(v)
		case varint7:
			r.Serializable = v != 0
		case varint8:
			r.KeysOnly = v != 0
		case varint9:
			r.CountOnly = v != 0
		case varint10:
			r.MinModRevision = int64(v)
		case varint11:
			r.MaxModRevision = int64(v)
		case varint12:
			r.MinCreateRevision = int64(v)
		case varint13:
			r.MaxCreateRevision = int64(v)
		default:
			return false
		}
	}
	return true
}

// Put decodes a PutRequest.
func Put(b []byte, r *pb.PutRequest) bool {
	for w := wire(b); len(w) > 0; {
		tag, v, raw, ok := w.next()
		if !ok {
			return false
		}
		switch tag {
		case bytes1:
			r.Key = raw
		case bytes2:
			r.Value = raw
		case varint3:
			r.Lease = int64(v)
		case varint4:
			r.PrevKv = v != 0
		case varint5:
			r.IgnoreValue = v != 0
		case varint6:
			r.IgnoreLease = v != 0
		default:
			return false
		}
	}
	return true
}

// DeleteRange decodes a DeleteRangeRequest.
func DeleteRange(b []byte, r *pb.DeleteRangeRequest) bool {
	for w := wire(b); len(w) > 0; {
		tag, v, raw, ok := w.next()
		if !ok {
			return false
		}
		switch tag {
		case bytes1:
			r.Key = raw
		case bytes2:
			r.RangeEnd = raw
		case varint3:
			r.PrevKv = v != 0
		default:
			return false
		}
	}
	return true
}
