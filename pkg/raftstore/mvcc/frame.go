package mvcc

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
