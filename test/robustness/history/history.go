package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/test/model"
)

// linearizableTimeout is reached when a test fails.
const linearizableTimeout = 60 * time.Second

func equal(a, b proto.Message) bool { return proto.Equal(a, b) || isNil(a) && isNil(b) }

func isNil(m proto.Message) bool { return m == nil || !m.ProtoReflect().IsValid() }

// History is all that happened, by revision.
type History struct {
	events []*mvccpb.Event
	states []model.State // states[i] is at revision 1+i
}

// Last is the newest revision.
func (h *History) Last() int64 { return h.states[len(h.states)-1].Revision }

func (h *History) at(rev int64) model.State { return h.states[rev-1] }

// before is the key's version that revision rev replaced, nil if there was none.
func (h *History) before(rev int64, key string) *mvccpb.KeyValue { return h.at(rev - 1).Get(key) }

// Events are how many there were.
func (h *History) Events() int { return len(h.events) }

// between are the events of revisions from..to that a watch is given, in order.
func (h *History) between(spec WatchSpec, from, to int64) (found []*mvccpb.Event) {
	for _, e := range h.events {
		if rev := e.Kv.ModRevision; from <= rev && rev <= to && spec.matches(e) {
			found = append(found, e)
		}
	}
	return found
}

// New takes what the watcher of everything got. It must be dense, and each event must follow from the one before it.
func New(w *Watcher) (*History, []string) {
	var problems []string
	h := &History{states: []model.State{model.New()}}
	for _, it := range w.items {
		for _, e := range it.events {
			bare := &mvccpb.Event{Type: e.Type, Kv: e.Kv}
			rev, s := e.Kv.ModRevision, h.states[len(h.states)-1]
			if rev == s.Revision && len(h.events) > 0 { // one more of the same revision
				h.states = h.states[:len(h.states)-1]
			} else if rev != s.Revision+1 {
				return h, append(problems, fmt.Sprintf("revision %d follows %d", rev, s.Revision))
			}
			before := h.states[len(h.states)-1]
			old := before.Get(string(e.Kv.Key))
			want := &mvccpb.KeyValue{Key: e.Kv.Key, ModRevision: rev}
			if e.Type == mvccpb.Event_PUT {
				want = before.Next(string(e.Kv.Key), e.Kv.Value, e.Kv.Lease, rev)
			} else if old == nil {
				problems = append(problems, fmt.Sprintf("revision %d deletes %q, which is not there", rev, e.Kv.Key))
			}
			if !equal(e.Kv, want) {
				problems = append(problems, fmt.Sprintf("revision %d has %v, and should have %v", rev, e.Kv, want))
			}
			h.events = append(h.events, bare)
			h.states = append(h.states, s.Apply(bare))
		}
	}
	return h, problems
}

// Settle finds out about the calls without an answer: whoever wrote a value that is in the history has succeeded, and gets the
// answer that it would have got. The others are deletes, of which nobody can say, and what never happened, which is left out.
func (h *History) Settle(ops []*Op) []*Op {
	byValue := make(map[string]int64)
	for _, e := range h.events {
		if e.Type == mvccpb.Event_PUT {
			byValue[string(e.Kv.Value)] = e.Kv.ModRevision
		}
	}
	var kept []*Op
	for _, o := range ops {
		if o.Response != nil {
			kept = append(kept, o)
			continue
		}
		value, deletes := written(o.Request)
		if rev, ok := byValue[value]; ok && value != "" {
			o.Response = answerAt(h, rev, o.Request)
			o.Return = 1 << 62
			kept = append(kept, o)
		} else if deletes {
			o.Return = 1 << 62
			kept = append(kept, o)
		}
	}
	return kept
}

func answerAt(h *History, rev int64, req proto.Message) proto.Message {
	_, resp := h.at(rev - 1).Step(req)
	return resp
}

// written is the value that a request writes, and whether it may delete.
func written(req proto.Message) (value string, deletes bool) {
	switch r := req.(type) {
	case *pb.PutRequest:
		return string(r.Value), false
	case *pb.DeleteRangeRequest:
		return "", true
	case *pb.TxnRequest:
		for _, o := range r.Success {
			if p := o.GetRequestPut(); p != nil {
				value = string(p.Value)
			}
			deletes = deletes || o.GetRequestDeleteRange() != nil
		}
	}
	return value, deletes
}

// CheckAnswers replays every answer on the state of its revision: what was answered must be what the model answers there, and what
// was acknowledged must be what is in the history.
func (h *History) CheckAnswers(ops []*Op) (problems []string) {
	writers := make(map[int64]*Op)
	for _, o := range ops {
		if o.Response == nil {
			continue
		}
		rev := o.Revision()
		if rev < 1 || rev > h.Last() {
			problems = append(problems, fmt.Sprintf("answer of revision %d, and the last one is %d: %v", rev, h.Last(), o.Request))
			continue
		}
		if rev > 1 && wrote(o) {
			got := answerAt(h, rev, o.Request)
			if other := writers[rev]; other != nil {
				problems = append(problems, fmt.Sprintf("revision %d was given to %v and to %v", rev, other.Request, o.Request))
			}
			writers[rev] = o
			after, _ := h.at(rev - 1).Step(o.Request)
			if !equal(got, plain(o.Response)) || !sameKeys(after, h.at(rev)) {
				problems = append(problems, fmt.Sprintf("%v was answered with %v at revision %d, and not %v", o.Request, o.Response, rev, got))
			}
			continue
		}
		if _, got := h.at(rev).Step(o.Request); !equal(got, plain(o.Response)) {
			problems = append(problems, fmt.Sprintf("%v was answered with %v at revision %d, and not %v", o.Request, o.Response, rev, got))
		}
	}
	return problems
}

// wrote is true for an answer that says that something was written.
func wrote(o *Op) bool {
	switch r := o.Response.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		for _, x := range r.Responses {
			if x.GetResponsePut() != nil || x.GetResponseDeleteRange().GetDeleted() > 0 {
				return true
			}
		}
	}
	return false
}

// plain is a response without what the model does not know: who answered.
func plain(resp proto.Message) proto.Message {
	m := proto.Clone(resp)
	header := m.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
	header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	return m
}

func sameKeys(a, b model.State) bool {
	return slices.Equal(a.Keys(), b.Keys()) && !slices.ContainsFunc(a.Keys(), func(k string) bool { return !equal(a.Get(k), b.Get(k)) })
}

// CheckOrder: who asks after somebody else was answered sees that answer's revision or a later one, and a write gets a later one.
func CheckOrder(ops []*Op) (problems []string) {
	ops = slices.DeleteFunc(slices.Clone(ops), stale)
	byAnswer := slices.Clone(ops)
	slices.SortFunc(byAnswer, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	byCall := slices.Clone(ops)
	slices.SortFunc(byCall, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	var newest int64
	done := 0
	for _, o := range byCall {
		for ; done < len(byAnswer) && byAnswer[done].Return < o.Call; done++ {
			if byAnswer[done].Response != nil {
				newest = max(newest, byAnswer[done].Revision())
			}
		}
		if o.Response == nil {
			continue
		}
		if rev := o.Revision(); rev < newest || wrote(o) && rev == newest {
			problems = append(problems, fmt.Sprintf("%v got revision %d after somebody was answered with revision %d", o.Request, rev, newest))
		}
	}
	return problems
}

// stale is true for a read that may be of the past.
func stale(o *Op) bool {
	r, ok := o.Request.(*pb.RangeRequest)
	return ok && r.Serializable
}

// CheckLeases: a revocation takes the lease's keys and nothing else does.
func (h *History) CheckLeases(rec *Recording) (problems []string) {
	revoked := make(map[int64]*Op)
	for _, o := range rec.revoked {
		revoked[o.Request.(*pb.LeaseRevokeRequest).ID] = o
	}
	for _, e := range h.events {
		if key := string(e.Kv.Key); e.Type == mvccpb.Event_DELETE && strings.HasPrefix(key, leasedKeys) {
			if revoked[rec.leaseOf[key]] == nil {
				problems = append(problems, fmt.Sprintf("revision %d took %q, whose lease nobody revoked", e.Kv.ModRevision, key))
			}
		}
	}
	for key, id := range rec.leaseOf {
		if o := revoked[id]; o != nil && o.Response != nil && h.at(h.Last()).Get(key) != nil {
			problems = append(problems, fmt.Sprintf("%q is there, and its lease was revoked", key))
		}
	}
	return problems
}

// CheckLinearizable gives each key's calls to porcupine.
func CheckLinearizable(ops []*Op) (problems []string) {
	byKey := make(map[string][]porcupine.Operation)
	for _, o := range ops {
		if key, ok := singleKey(o.Request); ok {
			byKey[key] = append(byKey[key], porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Call, Return: o.Return})
		}
	}
	m := porcupine.Model{
		Init: func() any { return model.New() },
		Step: stepOp,
		Equal: func(a, b any) bool {
			x, y := a.(model.State), b.(model.State)
			return x.Revision == y.Revision && sameKeys(x, y)
		},
	}
	for key, history := range byKey {
		if res := porcupine.CheckOperationsTimeout(m, history, linearizableTimeout); res != porcupine.Ok {
			problems = append(problems, fmt.Sprintf("the %d calls on key %q are not linearizable: %v", len(history), key, res))
		}
	}
	return problems
}

// singleKey is the key of a call on one of the plain keys.
func singleKey(req proto.Message) (string, bool) {
	key := ""
	switch r := req.(type) {
	case *pb.PutRequest:
		key = string(r.Key)
	case *pb.DeleteRangeRequest:
		key = string(r.Key)
	case *pb.RangeRequest:
		if len(r.RangeEnd) > 0 || r.Serializable {
			return "", false
		}
		key = string(r.Key)
	case *pb.TxnRequest:
		if len(r.Compare) == 0 {
			return "", false
		}
		key = string(r.Compare[0].Key)
	}
	return key, strings.HasPrefix(key, "k/") && key != "k/"
}

// stepOp is one call on the state of one key. The revision rises with the calls on other keys too, so it is only known to be at
// least what was seen here.
func stepOp(state, input, _ any) (bool, any) {
	s, o := state.(model.State), input.(*Op)
	if o.Response == nil {
		next, _ := s.Step(o.Request)
		return true, next
	}
	rev := o.Revision()
	if wrote(o) {
		if rev <= s.Revision {
			return false, s
		}
		s.Revision = rev - 1
	} else {
		if rev < s.Revision {
			return false, s
		}
		s.Revision = rev
	}
	next, resp := s.Step(o.Request)
	return equal(resp, plain(o.Response)), next
}
