package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Field numbers of etcdserverpb.ResponseHeader.
const (
	headerClusterID protowire.Number = 1
	headerMemberID  protowire.Number = 2
	headerRevision  protowire.Number = 3
	headerRaftTerm  protowire.Number = 4
)

// headerInfo is what a response header says beside the revision.
type headerInfo struct {
	clusterID uint64
	memberID  uint64
	prefix    []byte // cluster and member id, encoded once
}

func newHeaderInfo(clusterID, memberID uint64) headerInfo {
	h := headerInfo{clusterID: clusterID, memberID: memberID}
	h.prefix = appendUintField(h.prefix, headerClusterID, clusterID)
	h.prefix = appendUintField(h.prefix, headerMemberID, memberID)
	return h
}

// message is the header as a proto message.
func (h headerInfo) message(rev mvcc.Revision, term uint64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: h.clusterID, MemberId: h.memberID, Revision: int64(rev), RaftTerm: term}
}

// wireHeader is a header about to be encoded: the zero info is the header of an
// operation inside a txn, which carries a revision only.
type wireHeader struct {
	prefix []byte
	rev    mvcc.Revision
	term   uint64
}

func (h wireHeader) size() int {
	return len(h.prefix) + sizeUintField(headerRevision, uint64(h.rev)) + sizeUintField(headerRaftTerm, h.term)
}

func (h wireHeader) append(b []byte) []byte {
	b = append(b, h.prefix...)
	b = appendUintField(b, headerRevision, uint64(h.rev))
	return appendUintField(b, headerRaftTerm, h.term)
}

// appendUintField appends a varint field, or nothing if it is zero, as proto3 does.
func appendUintField(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func sizeUintField(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

// sizeBytesField is the size of a length-delimited field of n bytes.
func sizeBytesField(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}
