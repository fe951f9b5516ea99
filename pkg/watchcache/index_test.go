package watchcache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestIndexAgainstScan: the groups found for a key are those a scan finds.
func TestIndexAgainstScan(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	var x index
	ws := map[*group]*watcher{}
	keys := append([]string{"", "zz", "/registry", "/registry/pods/default/a/b//c", string(bytes.Repeat([]byte("/x"), 40))}, propertyKeys...)
	for range 20_000 {
		if r.IntN(3) == 0 && len(ws) > 0 {
			for g := range ws { // any
				x.remove(g)
				delete(ws, g)
				break
			}
		} else {
			key, end := randomRange(r)
			w := newWatcher(nil, CreateRequest{Key: key, RangeEnd: end})
			if w.check(CreateRequest{}) != nil {
				continue
			}
			ws[x.group(w.key, w.end)] = w
		}
		key := []byte(keys[r.IntN(len(keys))])
		var want, got []*group
		for g, w := range ws {
			if w.matches(key) {
				want = append(want, g)
			}
		}
		x.match(key, 1, func(g *group) { got = append(got, g) })
		if len(got) != len(want) {
			t.Fatalf("key %q: %d groups, want %d", key, len(got), len(want))
		}
		for _, g := range got {
			if !slices.Contains(want, g) {
				t.Fatalf("key %q: group %q..%q", key, g.start, g.end)
			}
		}
	}
}

// TestTopicHoldsRange: every key of a range that was given a topic is in it.
func TestTopicHoldsRange(t *testing.T) {
	for _, c := range []struct {
		key, end string
		want     string
	}{
		{"/registry/pods/", "/registry/pods0", "/registry/pods/"},
		{"/registry/pods/ns/", "/registry/pods/ns0", "/registry/pods/"},
		{"/registry/pods/ns/a", "", "/registry/pods/"},
		{"/registry/pods/ns/a\x00", "/registry/pods0", "/registry/pods/"},
		{"/registry/pods/a", "/registry/pods00", ""},
		{"/registry/pods/a", "/registry/pods1", ""},
		{"/registry/pods", "", ""},
		{"/registry/", "/registry0", ""},
		{"/registry/pods/", "\x00", ""},
		{"/registry/stable.example.com/", "/registry/stable.example.com0", ""},
		{"/registry/stable.example.com/crontabs/", "/registry/stable.example.com/crontabs0", "/registry/stable.example.com/crontabs/"},
		{"compact_rev_key", "", ""},
		{"", "\x00", ""},
		{"/a/b/c", "/a/b/d", "/a/b/"},
		{"/a/b/c", "/a/b0", "/a/b/"},
		{"/a/b/c", "/a/c", ""},
	} {
		w := newWatcher(nil, CreateRequest{Key: []byte(c.key), RangeEnd: []byte(c.end)})
		if got := string(w.key[:topicOfRange(w.key, w.end)]); got != c.want {
			t.Errorf("%q..%q: topic %q, want %q", c.key, c.end, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(1, 3))
	topics := 0
	for range 100_000 {
		key, end := randomRange(r)
		w := newWatcher(nil, CreateRequest{Key: key, RangeEnd: end})
		n := topicOfRange(w.key, w.end)
		if w.check(CreateRequest{}) != nil || n == 0 {
			continue
		}
		topics++
		for _, k := range propertyKeys {
			if w.matches([]byte(k)) && (topicLen([]byte(k)) != n || !bytes.HasPrefix([]byte(k), w.key[:n])) {
				t.Fatalf("%q is in %q..%q but not in its topic %q", k, key, end, w.key[:n])
			}
		}
	}
	if topics == 0 {
		t.Fatal("no range had a topic")
	}
}

// TestEventLogAgainstSlice: search, push and pop of the ring.
func TestEventLogAgainstSlice(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var l eventLog
	var twin []*event
	mod := mvcc.Revision(1)
	for range 20_000 {
		switch {
		case r.IntN(5) < 3 && len(twin) < 300:
			mod += mvcc.Revision(r.IntN(3))
			e := &event{mod: mod}
			l.push(e)
			twin = append(twin, e)
		case len(twin) > 0:
			for range min(len(twin), 1+r.IntN(20)) {
				l.pop()
				twin = twin[1:]
			}
		}
		rev := mod - mvcc.Revision(r.IntN(300)) + 2
		want := slices.IndexFunc(twin, func(e *event) bool { return e.mod >= rev })
		if want < 0 {
			want = len(twin)
		}
		if got := l.search(rev); l.n != len(twin) || got != want || got < l.n && l.at(got) != twin[want] {
			t.Fatalf("search(%d) = %d of %d, want %d of %d", rev, got, l.n, want, len(twin))
		}
	}
}

// TestWindowBytes: the window stays below its bytes, and what is charged is given
// back.
func TestWindowBytes(t *testing.T) {
	w := newWorld(t, Options{WindowBytes: 20_000})
	s := w.hub.NewStream()
	defer s.Close()
	s.Create(CreateRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0")})
	for i := range 500 {
		w.apply(putReq(fmt.Sprintf("/registry/pods/%d", i%7), string(make([]byte, i))))
		st := w.hub.Stats()
		if st.WindowBytes > 20_000 || st.WindowEvents == 0 {
			t.Fatalf("window: %+v", st)
		}
		if top := w.hub.topics["/registry/pods/"]; top.log.n != w.hub.log.n {
			t.Fatalf("the topic holds %d events, the hub %d", top.log.n, w.hub.log.n)
		}
	}
	w.apply(putReq("/registry/pods/large", string(make([]byte, 30_000))))
	if st := w.hub.Stats(); st.WindowBytes != 0 || st.WindowEvents != 0 || st.WindowFrom != w.hub.Revision()+1 {
		t.Fatalf("after an event larger than the window: %+v", st)
	}
	s.RequestProgress()
	events := 0
	for b := mustNext(t, s); b.Kind != BatchProgress; b = mustNext(t, s) {
		events += len(b.Events)
	}
	if events != 501 {
		t.Fatalf("%d events", events)
	}
}
