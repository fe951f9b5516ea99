package history

import (
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Response is one that a watcher got, with its fragments put together.
type Response struct {
	Revision  int64 // of the header
	Progress  bool  // a promise, without events
	Fragments int
	Events    []*mvccpb.Event
}

// Session is what came of one request for a watch.
type Session struct {
	From      int64 // the first revision asked for
	Responses []Response
}

// Validator is one of etcd's promises of a watch, under the name that its documentation and its robustness tests have for it.
type Validator struct {
	Name  string
	Check func(h *History, spec WatchSpec, s Session) []string
}

// Validators are all promises about one session. That sessions go on where the one before ended is how a Watcher asks for them.
var Validators = []Validator{
	{"ordered", ordered},
	{"unique", unique},
	{"atomic", atomicRevisions},
	{"reliable", reliable},
	{"resumable", resumable},
	{"bookmarkable", bookmarkable},
	{"filtered", filtered},
	{"prevKV", previous},
}

// Check compares what the watcher got with the history.
func (w *Watcher) Check(h *History) (problems []string) {
	var last int64 // what was seen and promised, over all sessions
	for i, s := range w.Sessions() {
		for _, v := range Validators {
			for _, p := range v.Check(h, w.Spec, s) {
				problems = append(problems, fmt.Sprintf("watch %s, session %d: not %s: %s", w.Spec.Name, i, v.Name, p))
			}
		}
		for _, r := range s.Responses {
			if r.Progress {
				last = max(last, r.Revision)
			}
		}
	}
	if last < h.Last() && !w.EndsEarly {
		problems = append(problems, fmt.Sprintf("watch %s: promised up to %d at the end, and the last revision is %d", w.Spec.Name, last, h.Last()))
	}
	return problems
}

// Sessions are the watcher's responses, by request. A revision whose last fragment did not come before the stream broke is left out:
// it is asked for again.
func (w *Watcher) Sessions() (all []Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var open []watchItem // fragments
	flush := func() {
		if len(open) == 0 {
			return
		}
		r := Response{Revision: open[len(open)-1].rev, Fragments: len(open)}
		for _, it := range open {
			r.Events = append(r.Events, it.events...)
		}
		s := &all[len(all)-1]
		s.Responses = append(s.Responses, r)
		open = nil
	}
	for _, it := range w.items {
		if it.created {
			if torn := len(open) > 0; torn {
				last := open[len(open)-1].events
				unfinished := last[len(last)-1].Kv.ModRevision
				for i := range open {
					open[i].events = slices.DeleteFunc(slices.Clone(open[i].events), func(e *mvccpb.Event) bool { return e.Kv.ModRevision == unfinished })
				}
				flush()
			}
			from := it.from
			if from == 0 { // from now on: everything behind the revision that the header names
				from = it.rev + 1
			}
			all = append(all, Session{From: from})
			continue
		}
		if len(all) == 0 { // nothing may come before: make it show
			all = append(all, Session{From: 1 << 62})
		}
		if it.progress {
			flush() // between fragments: makes two responses of one revision
			s := &all[len(all)-1]
			s.Responses = append(s.Responses, Response{Revision: it.rev, Progress: true})
			continue
		}
		if open = append(open, it); !it.fragment {
			flush()
		}
	}
	flush()
	return all
}

func (s Session) events() (all []*mvccpb.Event) {
	for _, r := range s.Responses {
		all = append(all, r.Events...)
	}
	return all
}

// ordered: revisions never go back, and no header is behind its events.
func ordered(_ *History, _ WatchSpec, s Session) (problems []string) {
	var last int64
	for _, r := range s.Responses {
		for _, e := range r.Events {
			if e.Kv.ModRevision < last {
				problems = append(problems, fmt.Sprintf("revision %d after %d", e.Kv.ModRevision, last))
			}
			last = e.Kv.ModRevision
		}
		if r.Revision < last {
			problems = append(problems, fmt.Sprintf("event of revision %d in or before a response of revision %d", last, r.Revision))
		}
	}
	return problems
}

// unique: no event comes twice.
func unique(_ *History, _ WatchSpec, s Session) (problems []string) {
	type name struct {
		rev int64
		key string
	}
	seen := make(map[name]bool)
	for _, e := range s.events() {
		n := name{e.Kv.ModRevision, string(e.Kv.Key)}
		if seen[n] {
			problems = append(problems, fmt.Sprintf("event of revision %d, key %q, comes again", n.rev, n.key))
		}
		seen[n] = true
	}
	return problems
}

// atomicRevisions: all events of a revision are in one response, whose fragments somebody asked for.
func atomicRevisions(_ *History, spec WatchSpec, s Session) (problems []string) {
	home := make(map[int64]int)
	for i, r := range s.Responses {
		if r.Fragments > 1 && !spec.Fragment {
			problems = append(problems, fmt.Sprintf("a response of revision %d is in fragments that nobody asked for", r.Revision))
		}
		for _, e := range r.Events {
			rev := e.Kv.ModRevision
			if at, ok := home[rev]; ok && at != i {
				problems = append(problems, fmt.Sprintf("revision %d is in two responses", rev))
			}
			home[rev] = i
		}
	}
	return problems
}

// reliable: from the first event to the last, all that happened is there, as it happened.
func reliable(h *History, spec WatchSpec, s Session) (problems []string) {
	got := s.events()
	if len(got) == 0 {
		return nil
	}
	want := h.between(spec, got[0].Kv.ModRevision, got[len(got)-1].Kv.ModRevision)
	for i, e := range got {
		if i == len(want) {
			return append(problems, fmt.Sprintf("event of revision %d, key %q, never happened", e.Kv.ModRevision, e.Kv.Key))
		}
		if e.Type != want[i].Type || !equal(e.Kv, want[i].Kv) {
			return append(problems, fmt.Sprintf("event %v, and what happened is %v", e, want[i]))
		}
	}
	if len(got) < len(want) {
		problems = append(problems, fmt.Sprintf("the event of revision %d, key %q, is missing", want[len(got)].Kv.ModRevision, want[len(got)].Kv.Key))
	}
	return problems
}

// resumable: the first event is the first one that there was from the revision that was asked for.
func resumable(h *History, spec WatchSpec, s Session) []string {
	got := s.events()
	if len(got) == 0 {
		return nil
	}
	first := got[0].Kv.ModRevision
	if want := h.between(spec, s.From, h.Last()); len(want) == 0 || want[0].Kv.ModRevision != first {
		return []string{fmt.Sprintf("begins with revision %d, asked for %d and the ones after", first, s.From)}
	}
	return nil
}

// bookmarkable: a promise of a revision comes when all up to it was sent, and nothing up to it comes afterwards.
func bookmarkable(h *History, spec WatchSpec, s Session) (problems []string) {
	var promised int64
	events := 0
	for _, r := range s.Responses {
		if r.Progress {
			if due := len(h.between(spec, s.From, r.Revision)); events < due {
				problems = append(problems, fmt.Sprintf("progress %d after %d of %d events", r.Revision, events, due))
			}
			if r.Revision < promised {
				problems = append(problems, fmt.Sprintf("progress %d after progress %d", r.Revision, promised))
			}
			promised = max(promised, r.Revision)
			continue
		}
		events += len(r.Events)
		for _, e := range r.Events {
			if e.Kv.ModRevision <= promised {
				problems = append(problems, fmt.Sprintf("event of revision %d after progress %d", e.Kv.ModRevision, promised))
			}
		}
	}
	return problems
}

// filtered: only what was asked for comes.
func filtered(_ *History, spec WatchSpec, s Session) (problems []string) {
	for _, e := range s.events() {
		if !spec.matches(e) {
			problems = append(problems, fmt.Sprintf("event %v of revision %d, key %q, was not asked for", e.Type, e.Kv.ModRevision, e.Kv.Key))
		}
	}
	return problems
}

// previous: who asks for it gets what the key was before, and nobody else does.
func previous(h *History, spec WatchSpec, s Session) (problems []string) {
	for _, e := range s.events() {
		rev := e.Kv.ModRevision
		if rev < 1 || rev > h.Last() {
			continue // reliable tells
		}
		var want *mvccpb.KeyValue
		if spec.Prev && rev > 1 {
			want = h.before(rev, string(e.Kv.Key))
		}
		if !equal(e.PrevKv, want) {
			problems = append(problems, fmt.Sprintf("event of revision %d, key %q, has previous %v, and it was %v", rev, e.Kv.Key, e.PrevKv, want))
		}
	}
	return problems
}
