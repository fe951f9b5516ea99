package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/test/model"
)

// story is a store's true history, written with the model: single keys from revision 2 on, the pair in one revision, a deletion.
//
//	2 put k/1   3 put k/2   4 put k/1   5 put m/a, m/b   6 delete k/2   7 put k/1
func story(t *testing.T) (*Watcher, *History) {
	t.Helper()
	state := model.New()
	w := &Watcher{Spec: WatchSpec{Name: "all", Key: "\x00", End: "\x00", From: 1, Prev: true}, next: 1}
	w.add(watchItem{created: true, from: 1, rev: 1})
	rev := int64(1)
	put := func(key, value string) *mvccpb.Event {
		return &mvccpb.Event{Kv: state.Next(key, []byte(value), 0, rev), PrevKv: state.Get(key)}
	}
	for _, keys := range []string{"k/1", "k/2", "k/1", "m/a m/b", "-k/2", "k/1"} {
		rev++
		var events []*mvccpb.Event
		for i, key := range strings.Fields(keys) {
			e := put(key, fmt.Sprintf("%d.%d", rev, i))
			if deleted, ok := strings.CutPrefix(key, "-"); ok {
				e = &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(deleted), ModRevision: rev}, PrevKv: state.Get(deleted)}
			}
			events = append(events, e)
		}
		for _, e := range events {
			state = state.Apply(&mvccpb.Event{Type: e.Type, Kv: e.Kv})
		}
		w.add(watchItem{rev: rev, events: events})
	}
	w.add(watchItem{progress: true, rev: rev})
	h, problems := New(w)
	if len(problems) > 0 || h.Last() != 7 || h.Events() != 7 {
		t.Fatalf("revision %d, %d events: %v", h.Last(), h.Events(), problems)
	}
	return w, h
}

func clone(s Session) Session {
	out := Session{From: s.From}
	for _, r := range s.Responses {
		r.Events = slices.Clone(r.Events)
		for i, e := range r.Events {
			r.Events[i] = proto.Clone(e).(*mvccpb.Event)
		}
		out.Responses = append(out.Responses, r)
	}
	return out
}

// TestValidators plants a violation of each promise. The promise itself has to be missed, and only those that it cannot be broken
// without.
func TestValidators(t *testing.T) {
	w, h := story(t)
	good := w.Sessions()[0]
	if problems := w.Check(h); len(problems) > 0 {
		t.Fatalf("a true history is refused: %v", problems)
	}
	for _, c := range []struct {
		name   string
		spec   func(*WatchSpec)
		plant  func(*Session)
		broken string // the validators that tell
	}{
		{"two revisions swapped", nil, func(s *Session) { r := s.Responses; r[1], r[2] = r[2], r[1] }, "ordered reliable"},
		{"header behind its events", nil, func(s *Session) { s.Responses[2].Revision-- }, "ordered"},
		{"event twice in a response", nil, func(s *Session) { r := &s.Responses[1]; r.Events = append(r.Events, r.Events[0]) }, "unique reliable"},
		{"response twice", nil, func(s *Session) { s.Responses = slices.Insert(s.Responses, 2, s.Responses[1]) }, "unique atomic reliable"},
		{"a revision in two responses", nil, func(s *Session) {
			r := s.Responses[3]
			s.Responses[3].Events = r.Events[:1]
			r.Events = r.Events[1:]
			s.Responses = slices.Insert(s.Responses, 4, r)
		}, "atomic"},
		{"fragments nobody asked for", nil, func(s *Session) { s.Responses[3].Fragments = 2 }, "atomic"},
		{"fragments somebody asked for", func(w *WatchSpec) { w.Fragment = true }, func(s *Session) { s.Responses[3].Fragments = 2 }, ""},
		{"a revision left out", nil, func(s *Session) { s.Responses = slices.Delete(s.Responses, 2, 3) }, "reliable bookmarkable"},
		{"half a revision left out", nil, func(s *Session) { s.Responses[3].Events = s.Responses[3].Events[1:] }, "reliable bookmarkable"},
		{"another value", nil, func(s *Session) { s.Responses[2].Events[0].Kv.Value = []byte("x") }, "reliable"},
		{"another create revision", nil, func(s *Session) { s.Responses[2].Events[0].Kv.CreateRevision = 4 }, "reliable"},
		{"a put for a delete", nil, func(s *Session) { s.Responses[4].Events[0].Type = mvccpb.Event_PUT }, "reliable"},
		{"something that never happened", nil, func(s *Session) {
			e := proto.Clone(s.Responses[5].Events[0]).(*mvccpb.Event)
			e.Kv.ModRevision, e.PrevKv = 8, nil
			s.Responses[5].Revision = 8
			s.Responses[5].Events = append(s.Responses[5].Events, e)
			s.Responses[6].Revision = 8
		}, "reliable"},
		{"the beginning left out", nil, func(s *Session) { s.Responses = s.Responses[1:] }, "resumable bookmarkable"},
		{"more than was asked for", nil, func(s *Session) { s.From = 3 }, "resumable"},
		{"progress too early", nil, func(s *Session) {
			s.Responses = slices.Insert(s.Responses, 2, Response{Revision: 4, Progress: true})
		}, "bookmarkable"},
		{"progress in time", nil, func(s *Session) {
			s.Responses = slices.Insert(s.Responses, 2, Response{Revision: 3, Progress: true})
		}, ""},
		{"progress that goes back", nil, func(s *Session) {
			s.Responses = append(s.Responses, Response{Revision: 5, Progress: true})
		}, "ordered bookmarkable"},
		{"a key that was not asked for", func(w *WatchSpec) { w.Key, w.End = "k/", "k0" }, func(*Session) {}, "reliable filtered"},
		{"a deletion that was not asked for", func(w *WatchSpec) { w.NoDelete = true }, func(*Session) {}, "reliable filtered"},
		{"no previous value", nil, func(s *Session) { s.Responses[2].Events[0].PrevKv = nil }, "prevKV"},
		{"another previous value", nil, func(s *Session) { s.Responses[2].Events[0].PrevKv.Version++ }, "prevKV"},
		{"previous value of a deletion", nil, func(s *Session) { s.Responses[4].Events[0].PrevKv = nil }, "prevKV"},
		{"previous values unasked", func(w *WatchSpec) { w.Prev = false }, func(*Session) {}, "prevKV"},
	} {
		spec, s := w.Spec, clone(good)
		if c.spec != nil {
			c.spec(&spec)
		}
		c.plant(&s)
		var broken []string
		for _, v := range Validators {
			if len(v.Check(h, spec, s)) > 0 {
				broken = append(broken, v.Name)
			}
		}
		if got := strings.Join(broken, " "); got != c.broken {
			t.Errorf("%s: found by %q, want %q", c.name, got, c.broken)
		}
	}
}

// TestSessions: a stream that breaks between the fragments of a revision gives it again.
func TestSessions(t *testing.T) {
	whole, h := story(t)
	events := whole.Sessions()[0].events()
	w := &Watcher{Spec: WatchSpec{Name: "fragments", Key: "\x00", End: "\x00", From: 1, Prev: true, Fragment: true}, next: 1}
	w.add(watchItem{created: true, from: 1, rev: 1})
	w.add(watchItem{rev: 4, events: events[:3]})
	w.add(watchItem{rev: 7, events: events[3:4], fragment: true}) // half of revision 5
	if got := w.Position(); got != 5 {
		t.Errorf("goes on from %d", got)
	}
	w.add(watchItem{created: true, from: 5, rev: 7})
	w.add(watchItem{rev: 7, events: events[3:4], fragment: true})
	w.add(watchItem{rev: 7, events: events[4:]})
	w.add(watchItem{progress: true, rev: 7})
	if problems := w.Check(h); len(problems) > 0 {
		t.Error(problems)
	}
	w.items = w.items[:len(w.items)-1]
	if problems := w.Check(h); len(problems) != 1 || !strings.Contains(problems[0], "promised up to 0 at the end") {
		t.Errorf("the end is missing: %v", problems)
	}
	w.EndsEarly = true
	if problems := w.Check(h); len(problems) > 0 {
		t.Errorf("there is no end to miss: %v", problems)
	}
	w.EndsEarly = false
	w.items = slices.Insert(w.items, 5, watchItem{progress: true, rev: 4})
	if problems := w.Check(h); !strings.Contains(strings.Join(problems, "\n"), "not atomic: revision") &&
		!strings.Contains(strings.Join(problems, "\n"), "fragments") {
		t.Errorf("progress between fragments: %v", problems)
	}
}

// calls are some clients' calls of the story, each after the one before.
func calls(h *History) (ops []*Op) {
	value := func(rev int64, key string) []byte { return h.at(rev).Get(key).Value }
	reqs := []proto.Message{
		&pb.PutRequest{Key: []byte("k/1"), Value: value(2, "k/1")},
		&pb.PutRequest{Key: []byte("k/2"), Value: value(3, "k/2")},
		&pb.PutRequest{Key: []byte("k/1"), Value: value(4, "k/1")},
		&pb.TxnRequest{Success: []*pb.RequestOp{PutOp("m/a", value(5, "m/a")), PutOp("m/b", value(5, "m/b"))}},
		&pb.DeleteRangeRequest{Key: []byte("k/2")},
		&pb.PutRequest{Key: []byte("k/1"), Value: value(7, "k/1")},
		&pb.RangeRequest{Key: []byte("k/1")},
	}
	for i, req := range reqs {
		rev := min(int64(i), 5)
		state := h.at(1 + rev)
		if i == len(reqs)-1 {
			state = h.at(7)
		}
		_, resp := state.Step(req)
		ops = append(ops, &Op{Client: i, Request: req, Response: resp, Call: int64(10 * i), Return: int64(10*i + 5)})
	}
	return ops
}

// TestCalls plants what must not be in a history of calls.
func TestCalls(t *testing.T) {
	_, h := story(t)
	stale := func(o *Op) { _, o.Response = h.at(2).Step(o.Request) }
	for _, c := range []struct {
		name    string
		plant   func([]*Op)
		answers bool // refused by CheckAnswers
		order   bool // by CheckOrder
		linear  bool // by CheckLinearizable
	}{
		{"true", func([]*Op) {}, false, false, false},
		{"a read of the past", func(o []*Op) { stale(o[6]) }, false, true, true},
		{"a serializable read of the past", func(o []*Op) { o[6].Request.(*pb.RangeRequest).Serializable = true; stale(o[6]) }, false, false, false},
		{"a read while it changed", func(o []*Op) { o[6].Call = 4; stale(o[6]) }, false, false, false},
		{"a read of what never was", func(o []*Op) { o[6].Response.(*pb.RangeResponse).Kvs[0].Value = []byte("x") }, true, false, true},
		{"a revision given twice", func(o []*Op) { o[5].Response.(*pb.PutResponse).Header.Revision = 4 }, true, true, true},
		{"an acknowledged write that is lost", func(o []*Op) { o[2].Request.(*pb.PutRequest).Value = []byte("lost") }, true, false, false},
		{"an answer from the future", func(o []*Op) { o[6].Response.(*pb.RangeResponse).Header.Revision = 9 }, true, false, false},
	} {
		ops := calls(h)
		c.plant(ops)
		if got := h.CheckAnswers(ops); (len(got) > 0) != c.answers {
			t.Errorf("%s: CheckAnswers: %v", c.name, got)
		}
		if got := CheckOrder(ops); (len(got) > 0) != c.order {
			t.Errorf("%s: CheckOrder: %v", c.name, got)
		}
		if got := CheckLinearizable(ops); (len(got) > 0) != c.linear {
			t.Errorf("%s: CheckLinearizable: %v", c.name, got)
		}
	}
}

// TestSettle: a call without an answer took effect if its value is there.
func TestSettle(t *testing.T) {
	_, h := story(t)
	ops := calls(h)
	ops[2].Response, ops[4].Response = nil, nil
	ops = append(ops, &Op{Request: &pb.PutRequest{Key: []byte("k/9"), Value: []byte("never")}}, &Op{Request: &pb.RangeRequest{Key: []byte("k/9")}})
	settled := h.Settle(ops)
	if len(settled) != 7 {
		t.Fatalf("%d calls are left", len(settled))
	}
	if put := settled[2]; put.Response == nil || put.Revision() != 4 || put.Return != 1<<62 {
		t.Errorf("the write that is there: %+v", put)
	}
	if gone := settled[4]; gone.Response != nil || gone.Return != 1<<62 {
		t.Errorf("the deletion of which nobody knows: %+v", gone)
	}
	if problems := append(h.CheckAnswers(settled), CheckOrder(settled)...); len(problems) > 0 {
		t.Error(problems)
	}
	if problems := CheckLinearizable(settled); len(problems) > 0 {
		t.Error(problems)
	}
}
