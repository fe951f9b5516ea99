package raftstore

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// describeEntry is what an entry asks for, without values, which may be secret.
func describeEntry(e *raftpb.Entry) string {
	if e.GetType() != raftpb.EntryNormal {
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return fmt.Sprintf("%v: %v", e.GetType(), err)
		}
		return fmt.Sprintf("%v node=%s context=%s", cc.GetType(), types.ID(cc.GetNodeId()), cc.GetContext())
	}
	if len(e.GetData()) == 0 {
		return "empty"
	}
	r, err := mvcc.Decode(e.GetData())
	if err != nil {
		return err.Error()
	}
	return describeRequest(r)
}

func describeRequest(r *pb.InternalRaftRequest) string {
	switch {
	case r.Put != nil:
		return describePut(r.Put)
	case r.DeleteRange != nil:
		return describeDelete(r.DeleteRange)
	case r.Txn != nil:
		return describeTxn(r.Txn)
	case r.Compaction != nil:
		return fmt.Sprintf("compact revision=%d physical=%t", r.Compaction.GetRevision(), r.Compaction.GetPhysical())
	case r.LeaseGrant != nil:
		return fmt.Sprintf("lease grant id=%x ttl=%d", r.LeaseGrant.GetID(), r.LeaseGrant.GetTTL())
	case r.LeaseRevoke != nil:
		return fmt.Sprintf("lease revoke id=%x", r.LeaseRevoke.GetID())
	case r.LeaseCheckpoint != nil:
		var b strings.Builder
		b.WriteString("lease checkpoint")
		for _, c := range r.LeaseCheckpoint.GetCheckpoints() {
			fmt.Fprintf(&b, " %x=%d", c.GetID(), c.GetRemaining_TTL())
		}
		return b.String()
	case r.Alarm != nil:
		return fmt.Sprintf("alarm %v %v member=%s", r.Alarm.GetAction(), r.Alarm.GetAlarm(), types.ID(r.Alarm.GetMemberID()))
	case r.ClusterVersionSet != nil:
		return "cluster version " + r.ClusterVersionSet.GetVer()
	case r.ClusterMemberAttrSet != nil:
		a := r.ClusterMemberAttrSet.GetMemberAttributes()
		return fmt.Sprintf("member attributes member=%s name=%s client_urls=%v", types.ID(r.ClusterMemberAttrSet.GetMember_ID()), a.GetName(), a.GetClientUrls())
	case r.DowngradeInfoSet != nil:
		return fmt.Sprintf("downgrade enabled=%t version=%s", r.DowngradeInfoSet.GetEnabled(), r.DowngradeInfoSet.GetVer())
	}
	return "request of an unknown kind"
}

func describePut(r *pb.PutRequest) string {
	return fmt.Sprintf("put key=%q value=%d bytes lease=%x", r.GetKey(), len(r.GetValue()), r.GetLease())
}

func describeDelete(r *pb.DeleteRangeRequest) string {
	if len(r.GetRangeEnd()) == 0 {
		return fmt.Sprintf("delete key=%q", r.GetKey())
	}
	return fmt.Sprintf("delete key=%q end=%q", r.GetKey(), r.GetRangeEnd())
}

func describeTxn(r *pb.TxnRequest) string {
	var b strings.Builder
	b.WriteString("txn if")
	for _, c := range r.GetCompare() {
		fmt.Fprintf(&b, " %v(%q)%v", c.GetTarget(), c.GetKey(), c.GetResult())
		switch c.GetTarget() {
		case pb.Compare_VERSION:
			fmt.Fprintf(&b, " %d", c.GetVersion())
		case pb.Compare_CREATE:
			fmt.Fprintf(&b, " %d", c.GetCreateRevision())
		case pb.Compare_MOD:
			fmt.Fprintf(&b, " %d", c.GetModRevision())
		case pb.Compare_LEASE:
			fmt.Fprintf(&b, " %x", c.GetLease())
		}
	}
	describeOps(&b, " then", r.GetSuccess())
	describeOps(&b, " else", r.GetFailure())
	return b.String()
}

func describeOps(b *strings.Builder, word string, ops []*pb.RequestOp) {
	b.WriteString(word)
	for _, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			fmt.Fprintf(b, " (%s)", describePut(op.GetRequestPut()))
		case op.GetRequestDeleteRange() != nil:
			fmt.Fprintf(b, " (%s)", describeDelete(op.GetRequestDeleteRange()))
		case op.GetRequestRange() != nil:
			fmt.Fprintf(b, " (range key=%q end=%q)", op.GetRequestRange().GetKey(), op.GetRequestRange().GetRangeEnd())
		case op.GetRequestTxn() != nil:
			fmt.Fprintf(b, " (%s)", describeTxn(op.GetRequestTxn()))
		}
	}
}
