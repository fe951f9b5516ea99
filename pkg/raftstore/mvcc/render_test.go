package mvcc

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/pkg/auth"
)

// render writes a result as the model does. Versions are read from their
// encoding, as a client would; all of it is in memory.
func render(res Result) string          { return (&renderer{}).result(res) }
func renderRange(r *RangeResult) string { return (&renderer{}).ranged(r) }
func renderVersion(v *Version) string   { return (&renderer{}).version(v) }

func renderVersions(vs []*Version) []string { return (&renderer{}).versions(vs) }

// renderer renders versions that may have left memory.
type renderer struct {
	rows RowReader
	gone bool // a row was not there any more
}

func (x *renderer) result(res Result) string {
	events := make([]string, len(res.Events))
	for i, e := range res.Events {
		events[i] = x.version(e.Version)
		if e.Prev != nil {
			events[i] += "<-" + x.version(e.Prev)
		}
	}
	return fmt.Sprintf("rev=%d err=%v %s %v", res.Revision, res.Err, x.body(res.Response), events)
}

func (x *renderer) body(body any) string {
	switch r := body.(type) {
	case nil:
		return ""
	case *RangeResult:
		return x.ranged(r)
	case *PutResult:
		if r.Prev != nil {
			return "put prev=" + x.version(r.Prev)
		}
		return "put"
	case *DeleteResult:
		return fmt.Sprintf("delete %d %v", r.Deleted, x.versions(r.Prev))
	case *TxnResult:
		return x.txn(r)
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
	case *AuthenticateResult:
		return fmt.Sprintf("token %q at auth revision %d", r.Token, r.AuthRevision)
	case auth.Status, auth.Names:
		return fmt.Sprintf("%+v", r)
	case auth.Permissions:
		var out []string
		for _, p := range r {
			out = append(out, fmt.Sprintf("%v %q %q", p.PermType, p.Key, p.RangeEnd))
		}
		return fmt.Sprint(out)
	}
	return fmt.Sprintf("%T?", body)
}

func (x *renderer) txn(r *TxnResult) string {
	ops := make([]string, len(r.Ops))
	for i, o := range r.Ops {
		switch {
		case o.Range != nil:
			ops[i] = x.ranged(o.Range)
		case o.Put != nil:
			ops[i] = x.body(o.Put)
		case o.Delete != nil:
			ops[i] = x.body(o.Delete)
		case o.Txn != nil:
			ops[i] = x.txn(o.Txn)
		}
		ops[i] += fmt.Sprintf("@%d", o.Revision)
	}
	return fmt.Sprintf("txn %v (%s)", r.Succeeded, strings.Join(ops, "; "))
}

func (x *renderer) ranged(r *RangeResult) string {
	var out []string
	for _, v := range r.Versions {
		if r.KeysOnly {
			out = append(out, renderKV(v.KeyOnlyKV(r.KeysLease)))
		} else {
			out = append(out, x.version(v))
		}
	}
	return fmt.Sprintf("range rev=%d count=%d more=%v %v", r.Revision, r.Count, r.More, out)
}

func (x *renderer) versions(vs []*Version) []string {
	var out []string
	for _, v := range vs {
		out = append(out, x.version(v))
	}
	return out
}

func (x *renderer) version(v *Version) string {
	kv := v.KV()
	if kv == nil {
		var err error
		switch kv, err = v.Encoding().Append(nil, x.rows); {
		case errors.Is(err, ErrRowGone):
			x.gone = true
		case err != nil:
			return err.Error()
		}
	}
	return renderKV(kv)
}

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
