package mvcc

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
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

	KindAuthEnable           Kind = 1000
	KindAuthDisable          Kind = 1011
	KindAuthenticate         Kind = 1012
	KindAuthStatus           Kind = 1013
	KindUserAdd              Kind = 1100
	KindUserDelete           Kind = 1101
	KindUserGet              Kind = 1102
	KindUserChangePassword   Kind = 1103
	KindUserGrantRole        Kind = 1104
	KindUserRevokeRole       Kind = 1105
	KindUserList             Kind = 1106
	KindRoleList             Kind = 1107
	KindRoleAdd              Kind = 1200
	KindRoleDelete           Kind = 1201
	KindRoleGet              Kind = 1202
	KindRoleGrantPermission  Kind = 1203
	KindRoleRevokePermission Kind = 1204
)

var kindNames = map[Kind]string{
	KindPut: "put", KindDeleteRange: "delete range", KindTxn: "txn", KindCompaction: "compaction",
	KindLeaseGrant: "lease grant", KindLeaseRevoke: "lease revoke", KindAlarm: "alarm",
	KindLeaseCheckpoint: "lease checkpoint", KindClusterVersion: "cluster version",
	KindMemberAttr: "member attributes", KindDowngradeInfo: "downgrade info",
	KindAuthEnable: "auth enable", KindAuthDisable: "auth disable", KindAuthenticate: "authenticate",
	KindAuthStatus: "auth status", KindUserAdd: "user add", KindUserDelete: "user delete", KindUserGet: "user get",
	KindUserChangePassword: "user change password", KindUserGrantRole: "user grant role",
	KindUserRevokeRole: "user revoke role", KindUserList: "user list", KindRoleList: "role list",
	KindRoleAdd: "role add", KindRoleDelete: "role delete", KindRoleGet: "role get",
	KindRoleGrantPermission: "role grant permission", KindRoleRevokePermission: "role revoke permission",
}

// String names the kind.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// Fields of InternalRaftRequest: the id of the request, and its RequestHeader,
// which says who asks.
const (
	fieldID     = 1
	fieldHeader = 100
)

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

// AppendInfo appends to the payload of an entry who asks: a RequestHeader.
//
//	tag(100, bytes) length ( tag(2, bytes) length username | tag(3, varint) revision )
//
// The error is that the name is no UTF-8: that of a certificate may not be.
func AppendInfo(dst []byte, i auth.Info) ([]byte, error) {
	h := &pb.RequestHeader{Username: i.Username, AuthRevision: i.Revision}
	dst = protowire.AppendTag(dst, fieldHeader, protowire.BytesType)
	dst = binary.AppendUvarint(dst, uint64(proto.Size(h)))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(dst, h)
}

// infoOf answers who asks.
func infoOf(r *pb.InternalRaftRequest) auth.Info {
	return auth.Info{Username: r.GetHeader().GetUsername(), Revision: r.GetHeader().GetAuthRevision()}
}

// FrameLeaseExpiry appends the payload of an entry with a revoke that the lease
// clock decided on in a term. It is an ordinary LeaseRevoke to etcd; the term
// rides in a field that etcd does not know.
func FrameLeaseExpiry(dst []byte, reqID uint64, id LeaseID, term uint64) []byte {
	body := appendInt(nil, 1<<3|0, int64(id)) // LeaseRevokeRequest.ID
	return appendTerm(Frame(dst, reqID, KindLeaseRevoke, body), term)
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
	header  pb.RequestHeader
	put     pb.PutRequest
	del     pb.DeleteRangeRequest
	txn     request.Txn
}

// Decode is as the function, but that the result shares the payload's bytes and is valid until the next call.
func (d *Decoder) Decode(payload []byte) (*pb.InternalRaftRequest, error) {
	if id, kind, body, rest, ok := unframe(payload); ok && d.decode(kind, body) && d.decodeHeader(rest) {
		d.request.ID = id
		return &d.request, nil
	}
	return Decode(payload)
}

// decodeHeader decodes what is behind the request: nothing, or a header.
func (d *Decoder) decodeHeader(rest []byte) bool {
	if len(rest) == 0 {
		return true
	}
	num, typ, n := protowire.ConsumeTag(rest)
	if n < 0 || num != fieldHeader || typ != protowire.BytesType {
		return false
	}
	b, m := protowire.ConsumeBytes(rest[n:])
	if m != len(rest)-n || proto.Unmarshal(b, &d.header) != nil {
		return false
	}
	d.request.Header = &d.header
	return true
}

// unframe takes apart what Frame has put together, and answers what is behind it.
func unframe(payload []byte) (id uint64, kind Kind, body, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(payload)
	if n > 0 && num == fieldID && typ == protowire.VarintType {
		payload = payload[n:]
		if id, n = protowire.ConsumeVarint(payload); n < 0 {
			return 0, 0, nil, nil, false
		}
		payload = payload[n:]
		num, typ, n = protowire.ConsumeTag(payload)
	}
	if n < 0 || typ != protowire.BytesType {
		return 0, 0, nil, nil, false
	}
	body, m := protowire.ConsumeBytes(payload[n:])
	if m < 0 {
		return 0, 0, nil, nil, false
	}
	return id, Kind(num), body, payload[n+m:], true
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
