package ledger

import (
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// story is a run that is told to a ledger: what the store did, and what clients
// were told of it, which a test may change.
type story struct {
	*Ledger
	t      *testing.T
	state  map[string]*mvccpb.KeyValue
	rev    int64
	now    time.Time
	follow []*Follower
}

func newStory(t *testing.T) *story {
	s := &story{Ledger: New(), t: t, state: map[string]*mvccpb.KeyValue{}, rev: 1, now: time.Unix(1000, 0)}
	s.Witness()
	for _, f := range []*Follower{{Name: "a", Prefix: "a/", From: 2, Prev: true}, {Name: "all", From: 3}} {
		s.Follow(f)
		s.follow = append(s.follow, f)
	}
	return s
}

// change is an event that happens at the next revision.
func (s *story) change(key, value string, lease int64) *mvccpb.Event {
	e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: s.rev + 1}, PrevKv: s.state[key]}
	if value == "" {
		e.Type = mvccpb.Event_DELETE
		delete(s.state, key)
		return e
	}
	e.Kv = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: s.rev + 1, CreateRevision: s.rev + 1, Version: 1, Lease: lease}
	if e.PrevKv != nil {
		e.Kv.CreateRevision, e.Kv.Version = e.PrevKv.CreateRevision, e.PrevKv.Version+1
	}
	s.state[key] = e.Kv
	return e
}

// happens tells all watches.
func (s *story) happens(events ...*mvccpb.Event) {
	s.rev++
	s.Witness().Take(events, s.now)
	for _, f := range s.follow {
		var mine []*mvccpb.Event
		for _, e := range events {
			if strings.HasPrefix(string(e.Kv.Key), f.Prefix) && e.Kv.ModRevision >= f.From {
				mine = append(mine, e)
			}
		}
		f.Take(mine)
	}
}

// write is one that is acknowledged.
func (s *story) write(key, value string, lease int64) {
	w := s.Put(key, []byte(value), lease)
	if value == "" {
		w = s.Delete(key)
	}
	s.happens(s.change(key, value, lease))
	w.Acked(s.rev)
}

func (s *story) promise() {
	for _, f := range s.follow {
		f.Promised(s.rev)
	}
}

// list is what a client reads.
func (s *story) list(prefix string, keys ...string) Digest {
	var d Digest
	for _, key := range keys {
		d.Add(s.state[key])
	}
	return d
}

// begin is a run that a ledger has nothing against.
func (s *story) begin() {
	s.Granted(7, 10*time.Second, s.now)
	s.write("a/1", "one", 0)
	s.write("b/1", "two", 7)
	s.write("a/1", "three", 0)
	s.write("b/2", "four", 7)
	s.promise()
	s.Read("a/1", s.state["a/1"], s.rev, s.Newest())
	s.Read("a/9", nil, s.rev, s.Newest())
	s.List("", s.rev, s.list("", "a/1", "b/1", "b/2"))
	s.List("b/", s.rev, s.list("b/", "b/1", "b/2"))
	s.write("a/2", "five", 0)
	s.write("a/1", "", 0)
	s.promise()
}

func (s *story) expire() {
	s.happens(s.change("b/1", "", 0), s.change("b/2", "", 0))
}

// tales go on from a run that a ledger has nothing against.
var tales = []struct {
	name string
	tell func(*story)
	want string // part of a problem; none if empty
}{
	{"all is well", func(s *story) {}, ""},
	{"a lease expires", func(s *story) {
		s.now = s.now.Add(10 * time.Second)
		s.expire()
		s.promise()
		s.List("", s.rev, s.list("", "a/2"))
	}, ""},
	{"it expires too early", func(s *story) { s.now = s.now.Add(9 * time.Second); s.expire() }, "ends 1s too early"},
	{"only some of its keys", func(s *story) {
		s.now = s.now.Add(time.Minute)
		s.happens(s.change("b/1", "", 0))
	}, "1 of the 2 keys of lease 7"},
	{"an acknowledged write is lost", func(s *story) { s.Put("a/3", []byte("x"), 0).Acked(s.rev + 1) }, "the log ends with"},
	{"another one is in its place", func(s *story) {
		w := s.Put("a/3", []byte("x"), 0)
		s.happens(s.change("a/3", "y", 0))
		w.Acked(s.rev)
	}, "lost: the write of a/3"},
	{"its lease is another", func(s *story) {
		w := s.Put("a/3", []byte("x"), 7)
		s.happens(s.change("a/3", "x", 0))
		w.Acked(s.rev)
	}, "lost: the write of a/3"},
	{"two were given a revision", func(s *story) {
		w := s.Put("a/4", []byte("y"), 0)
		s.write("a/3", "x", 0)
		w.Acked(s.rev)
	}, "too"},
	{"a write of which nobody knows happens", func(s *story) {
		s.Put("a/3", []byte("x"), 0).Unknown()
		s.happens(s.change("a/3", "x", 0))
	}, ""},
	{"it does not", func(s *story) { s.Put("a/3", []byte("x"), 0).Unknown() }, ""},
	{"it happens twice", func(s *story) {
		s.Put("a/3", []byte("x"), 0).Unknown()
		s.happens(s.change("a/3", "x", 0))
		s.happens(s.change("a/3", "x", 0))
	}, "is nobody's"},
	{"a deletion of which nobody knows happens", func(s *story) {
		s.Delete("a/2").Unknown()
		s.happens(s.change("a/2", "", 0))
	}, ""},
	{"a refused write happens", func(s *story) {
		s.Put("a/3", []byte("x"), 0).Refused()
		s.happens(s.change("a/3", "x", 0))
	}, "is nobody's"},
	{"a revision is missing", func(s *story) { s.rev++; s.write("a/3", "x", 0) }, "the log has revision 9 behind 7"},
	{"a revision comes twice", func(s *story) {
		e := s.change("a/3", "x", 0)
		s.Put("a/3", []byte("x"), 0).Acked(s.rev + 1)
		s.happens(e)
		s.Witness().Take([]*mvccpb.Event{e}, s.now)
	}, "behind 8"},
	{"a version does not follow", func(s *story) { s.state["a/2"].Version = 5; s.write("a/2", "x", 0) }, "and it should be"},
	{"what is not there is deleted", func(s *story) { s.write("a/9", "", 0) }, "is not there"},
	{"a write goes back", func(s *story) {
		w := s.Put("a/3", []byte("x"), 0)
		w.Acked(s.rev)
	}, "got revision 7 after somebody was answered with 7"},
	{"a get is of the past", func(s *story) { s.Read("a/2", nil, s.rev-2, s.Newest()) }, "was answered at revision 5 after"},
	{"a get is wrong", func(s *story) { s.Read("a/2", s.state["b/1"], s.rev, s.Newest()) }, "is not what was there"},
	{"a get misses a key", func(s *story) { s.Read("a/2", nil, s.rev, s.Newest()) }, "is not what was there"},
	{"a list misses a key", func(s *story) { s.List("b/", s.rev, s.list("b/", "b/1")) }, "has 1 keys"},
	{"a list is of another revision", func(s *story) { s.List("", s.rev-1, s.list("", "a/2", "b/1", "b/2")) }, "a list of  at revision 6"},
	{"a list is not in order", func(s *story) { s.List("b/", s.rev, s.list("b/", "b/2", "b/1")) }, "unordered true"},
	{"a watch misses an event", func(s *story) {
		s.follow[0].Prefix = "none"
		s.write("a/3", "x", 0)
		s.write("c/3", "x", 0)
		s.follow[0].Prefix = "a/"
		s.promise()
	}, "watch a"},
	{"an event comes twice", func(s *story) {
		s.follow[1].Take([]*mvccpb.Event{{Kv: s.state["a/2"]}})
	}, "watch all"},
	{"events change places", func(s *story) {
		x, y := s.change("c/1", "x", 0), &mvccpb.Event{}
		s.Put("c/1", []byte("x"), 0).Acked(s.rev + 1)
		s.Witness().Take([]*mvccpb.Event{x}, s.now)
		s.rev++
		y = s.change("c/2", "y", 0)
		s.Put("c/2", []byte("y"), 0).Acked(s.rev + 1)
		s.Witness().Take([]*mvccpb.Event{y}, s.now)
		s.follow[1].Take([]*mvccpb.Event{y, x})
		s.follow[1].Promised(s.rev + 1)
	}, "watch all"},
	{"a watch has the wrong version before", func(s *story) {
		e := s.change("a/2", "x", 0)
		e.PrevKv = nil
		s.Put("a/2", []byte("x"), 0).Acked(s.rev + 1)
		s.happens(e)
	}, "watch a"},
	{"a promise comes too early", func(s *story) {
		s.follow[1].Promised(s.rev + 1)
		s.write("c/3", "x", 0)
	}, "promised revision 8"},
	{"a watch is told of a compaction below its events", func(s *story) { s.follow[1].Compacted = s.rev }, "was compacted"},
	{"a watch has a problem", func(s *story) { s.follow[1].Problems = []string{"it ended"} }, "watch all: it ended"},
}

func TestJudge(t *testing.T) {
	for _, c := range tales {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t)
			s.begin()
			c.tell(s)
			problems := s.Judge()
			if said := strings.Join(problems, "\n"); c.want == "" && said != "" || !strings.Contains(said, c.want) {
				t.Errorf("%q, want %q", problems, c.want)
			}
		})
	}
}

// TestFollowerGoesOn: where a watch goes on behind what it has seen and was promised.
func TestFollowerGoesOn(t *testing.T) {
	f := &Follower{From: 5}
	for _, c := range []struct {
		do   func()
		want int64
	}{
		{func() {}, 5},
		{func() { f.Take([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{ModRevision: 6}}}) }, 7},
		{func() { f.Promised(9); f.Promised(9) }, 10},
		{func() { f.Take([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{ModRevision: 12}}}) }, 13},
	} {
		if c.do(); f.Next() != c.want {
			t.Errorf("goes on at %d, want %d", f.Next(), c.want)
		}
	}
	if len(f.Promises) != 1 {
		t.Errorf("promises %v", f.Promises)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	l := New()
	for range problemsMax + 5 {
		l.Problem("wrong")
	}
	if got := l.Problems(); len(got) != problemsMax+1 || got[problemsMax] != "and 5 more" {
		t.Errorf("%d problems, the last %q", len(got), got[len(got)-1])
	}
}
