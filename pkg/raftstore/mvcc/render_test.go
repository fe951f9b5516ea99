package mvcc

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// render writes a result as the model does. Versions are read from their
// encoding, as a client would.
func render(res Result) string {
	events := make([]string, len(res.Events))
	for i, e := range res.Events {
		events[i] = renderVersion(e.Version)
		if e.Prev != nil {
			events[i] += "<-" + renderVersion(e.Prev)
		}
	}
	return fmt.Sprintf("rev=%d err=%v %s %v", res.Revision, res.Err, renderBody(res.Response), events)
}

func renderBody(body any) string {
	switch r := body.(type) {
	case nil:
		return ""
	case *RangeResult:
		return renderRange(r)
	case *PutResult:
		if r.Prev != nil {
			return "put prev=" + renderVersion(r.Prev)
		}
		return "put"
	case *DeleteResult:
		return fmt.Sprintf("delete %d %v", r.Deleted, renderVersions(r.Prev))
	case *TxnResult:
		return renderTxn(r)
	case *CompactResult:
		return fmt.Sprintf("compact %d", r.Revision)
	case *AlarmResult:
		var hit []string
		for _, a := range r.Alarms {
			hit = append(hit, fmt.Sprint(a.Alarm, a.MemberID))
		}
		return fmt.Sprintf("alarm %v", hit)
	case *LeaseGrantResult:
		return fmt.Sprintf("grant %d %d", r.ID, r.TTL)
	case *LeaseCheckpointResult:
		return "checkpoint"
	case *LeaseRevokeResult:
		return fmt.Sprintf("revoke %d", r.ID)
	}
	return fmt.Sprintf("%T?", body)
}

func renderTxn(r *TxnResult) string {
	ops := make([]string, len(r.Ops))
	for i, o := range r.Ops {
		switch {
		case o.Range != nil:
			ops[i] = renderRange(o.Range)
		case o.Put != nil:
			ops[i] = renderBody(o.Put)
		case o.Delete != nil:
			ops[i] = renderBody(o.Delete)
		case o.Txn != nil:
			ops[i] = renderTxn(o.Txn)
		}
		ops[i] += fmt.Sprintf("@%d", o.Revision)
	}
	return fmt.Sprintf("txn %v (%s)", r.Succeeded, strings.Join(ops, "; "))
}

func renderRange(r *RangeResult) string {
	var out []string
	for _, v := range r.Versions {
		kv := v.KV()
		if r.KeysOnly {
			kv = v.KeyOnlyKV(r.KeysLease)
		}
		out = append(out, renderKV(kv))
	}
	return fmt.Sprintf("range rev=%d count=%d more=%v %v", r.Revision, r.Count, r.More, out)
}

func renderVersions(vs []*Version) []string {
	var out []string
	for _, v := range vs {
		out = append(out, renderVersion(v))
	}
	return out
}

func renderVersion(v *Version) string { return renderKV(v.KV()) }

func renderKV(b []byte) string {
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(b, &kv); err != nil {
		return fmt.Sprintf("{%x: %v}", b, err)
	}
	if kv.CreateRevision == 0 {
		return fmt.Sprintf("{%s deleted m%d}", kv.Key, kv.ModRevision)
	}
	return fmt.Sprintf("{%s=%q c%d m%d v%d l%d}", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
}
