package mvcc

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/request"
)

// Kind says which request an entry of the log holds. Its value is the field
// number in etcdserverpb.InternalRaftRequest.
type Kind uint16

// The kinds of commands.
const (
	KindPut             Kind = 4
	KindDeleteRange     Kind = 5
	KindTxn             Kind = 6
	KindCompaction      Kind = 7
	KindLeaseGrant      Kind = 8
	KindLeaseRevoke     Kind = 9
	KindAlarm           Kind = 10
	KindLeaseCheckpoint Kind = 11
	KindClusterVersion  Kind = 1300
	KindMemberAttr      Kind = 1301
	KindDowngradeInfo   Kind = 1302
)

var kindNames = map[Kind]string{
	KindPut: "put", KindDeleteRange: "delete range", KindTxn: "txn", KindCompaction: "compaction",
	KindLeaseGrant: "lease grant", KindLeaseRevoke: "lease revoke", KindAlarm: "alarm",
	KindLeaseCheckpoint: "lease checkpoint", KindClusterVersion: "cluster version",
	KindMemberAttr: "member attributes", KindDowngradeInfo: "downgrade info",
}

// String names the kind.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// fieldID is the field of InternalRaftRequest with the id of the request.
const fieldID = 1

// Frame appends the payload of a log entry: an InternalRaftRequest with an id
// and one request, whose bytes are taken as they are.
//
//	tag(1, varint) id | tag(kind, bytes) length body
func Frame(dst []byte, id uint64, kind Kind, body []byte) []byte {
	dst = AppendFrameHeader(dst, id, kind, len(body))
	return append(dst, body...)
}

// AppendFrameHeader appends what Frame puts before the body, for those who
// write the body from where it is.
func AppendFrameHeader(dst []byte, id uint64, kind Kind, bodyLen int) []byte {
	if id != 0 {
		dst = protowire.AppendTag(dst, fieldID, protowire.VarintType)
		dst = binary.AppendUvarint(dst, id)
	}
	dst = protowire.AppendTag(dst, protowire.Number(kind), protowire.BytesType)
	return binary.AppendUvarint(dst, uint64(bodyLen))
}

// FrameLeaseExpiry appends the payload of an entry with LeaseExpiryRequest.
func FrameLeaseExpiry(dst []byte, reqID uint64, id LeaseID, term uint64) []byte {
	body := appendInt(nil, 1<<3|0, int64(id)) // LeaseRevokeRequest.ID
	return appendExpiryTerm(Frame(dst, reqID, KindLeaseRevoke, body), term)
}

// Decode decodes the payload of a log entry. The result shares nothing with
// the payload.
func Decode(payload []byte) (*pb.InternalRaftRequest, error) {
	r := new(pb.InternalRaftRequest)
	if err := proto.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	return r, nil
}

// Decoder decodes the payloads of members that apply what others have proposed. Puts, deletes and txns take none of the many
// allocations that proto makes. The zero value is usable.
type Decoder struct {
	request pb.InternalRaftRequest
	put     pb.PutRequest
	del     pb.DeleteRangeRequest
	txn     request.Txn
}

// Decode is as the function, but that the result shares the payload's bytes and is valid until the next call.
func (d *Decoder) Decode(payload []byte) (*pb.InternalRaftRequest, error) {
	if id, kind, body, ok := unframe(payload); ok && d.decode(kind, body) {
		d.request.ID = id
		return &d.request, nil
	}
	return Decode(payload)
}

// unframe takes apart what Frame has put together, and nothing else.
func unframe(payload []byte) (id uint64, kind Kind, body []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(payload)
	if n > 0 && num == fieldID && typ == protowire.VarintType {
		payload = payload[n:]
		if id, n = protowire.ConsumeVarint(payload); n < 0 {
			return 0, 0, nil, false
		}
		payload = payload[n:]
		num, typ, n = protowire.ConsumeTag(payload)
	}
	if n < 0 || typ != protowire.BytesType {
		return 0, 0, nil, false
	}
	body, m := protowire.ConsumeBytes(payload[n:])
	return id, Kind(num), body, m == len(payload)-n
}

// decode is false for what is left to proto.
func (d *Decoder) decode(kind Kind, body []byte) bool {
	d.request.Reset()
	switch kind {
	case KindPut:
		d.put.Reset()
		d.request.Put = &d.put
		return request.Put(body, &d.put)
	case KindDeleteRange:
		d.del.Reset()
		d.request.DeleteRange = &d.del
		return request.DeleteRange(body, &d.del)
	case KindTxn:
		d.txn = request.Txn{}
		d.request.Txn = &d.txn.TxnRequest
		return d.txn.Decode(body)
	}
	return false
}

// CompactionOf is the revision that the entry with this payload compacts to, if it is such an entry.
func CompactionOf(payload []byte) (rev Revision, ok bool) {
	for len(payload) > 0 {
		num, typ, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return 0, false
		}
		payload = payload[n:]
		if Kind(num) == KindCompaction && typ == protowire.BytesType {
			body, n := protowire.ConsumeBytes(payload)
			var r pb.CompactionRequest
			if n < 0 || proto.Unmarshal(body, &r) != nil {
				return 0, false
			}
			return Revision(r.GetRevision()), true
		}
		if n = protowire.ConsumeFieldValue(num, typ, payload); n < 0 {
			return 0, false
		}
		payload = payload[n:]
	}
	return 0, false
}
