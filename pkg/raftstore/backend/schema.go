package backend

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// The buckets of etcd's schema, and ours.
var (
	bucketKey            = []byte("key")
	bucketMeta           = []byte("meta")
	bucketLease          = []byte("lease")
	bucketAlarm          = []byte("alarm")
	bucketCluster        = []byte("cluster")
	bucketMembers        = []byte("members")
	bucketMembersRemoved = []byte("members_removed")
	bucketAuth           = []byte("auth")
	bucketAuthUsers      = []byte("authUsers")
	bucketAuthRoles      = []byte("authRoles")
	bucketShim           = []byte("shim")

	buckets = [][]byte{bucketKey, bucketMeta, bucketLease, bucketAlarm, bucketCluster, bucketMembers, bucketMembersRemoved,
		bucketAuth, bucketAuthUsers, bucketAuthRoles, bucketShim}
)

var (
	metaIndex            = []byte("consistent_index")
	metaTerm             = []byte("term")
	metaConfState        = []byte("confState")
	metaScheduledCompact = []byte("scheduledCompactRev")
	metaFinishedCompact  = []byte("finishedCompactRev")
	metaStorageVersion   = []byte("storageVersion")
	clusterVersion       = []byte("clusterVersion")
	clusterDowngrade     = []byte("downgrade")
	authEnabled          = []byte("authEnabled")
	authRevision         = []byte("authRevision")
	shimFacts            = []byte("facts")
)

// StorageVersion is the newest version of the schema that is written.
const StorageVersion = "3.7.0"

// StorageVersionOf is the version of the schema under a cluster version: the same, or ours while the cluster has none.
func StorageVersionOf(clusterVersion string) string {
	if clusterVersion == "" {
		return StorageVersion
	}
	return clusterVersion
}

// Readable is true for the schemas of etcd 3.x up to ours. A file without a version is empty or of etcd 3.5.
func Readable(version string) bool {
	if version == "" {
		return true
	}
	var major, minor, wantMajor, wantMinor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	fmt.Sscanf(StorageVersion, "%d.%d", &wantMajor, &wantMinor)
	return major == wantMajor && minor <= wantMinor
}

var (
	errRowShort = errors.New("row is too short")
	removedMark = []byte("removed")
)

func encodeLeaseID(id mvcc.LeaseID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// encodeLease is leasepb.Lease.
func encodeLease(l mvcc.Lease) []byte {
	var b []byte
	for i, v := range []int64{int64(l.ID), l.TTL, l.Remaining} {
		if v != 0 {
			b = protowire.AppendTag(b, protowire.Number(i+1), protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(v))
		}
	}
	return b
}

func decodeLease(b []byte) (mvcc.Lease, error) {
	var fields [4]int64
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return mvcc.Lease{}, protowire.ParseError(n)
		}
		b = b[n:]
		if num <= 3 && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return mvcc.Lease{}, protowire.ParseError(n)
			}
			fields[num], b = int64(v), b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return mvcc.Lease{}, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return mvcc.Lease{ID: mvcc.LeaseID(fields[1]), TTL: fields[2], Remaining: fields[3]}, nil
}

// encodeRevision is a revision as etcd keeps it in bucket meta.
func encodeRevision(r mvcc.Revision) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(r))
	b = append(b, '_')
	return binary.BigEndian.AppendUint64(b, 0)
}

func decodeRevision(b []byte) (mvcc.Revision, error) {
	if len(b) < 17 {
		return 0, errRowShort
	}
	return mvcc.Revision(binary.BigEndian.Uint64(b)), nil
}

func decodeUint64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errRowShort
	}
	return binary.BigEndian.Uint64(b), nil
}

func decodeKV(b []byte) (*mvccpb.KeyValue, error) {
	kv := &mvccpb.KeyValue{}
	return kv, proto.Unmarshal(b, kv)
}
