package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Judge compares all that was recorded with the log, and answers the problems,
// those that were noted before among them. It is called once, at the end.
func (l *Ledger) Judge() []string {
	l.mu.Lock()
	j := &judge{l: l, state: make(map[keyID]item), byLease: make(map[int64]map[keyID]bool)}
	j.prepare()
	j.replay()
	for _, f := range l.followers {
		j.follower(f)
	}
	l.mu.Unlock()
	return l.Problems()
}

// judge is one Judge under way.
type judge struct {
	l        *Ledger
	state    map[keyID]item
	byLease  map[int64]map[keyID]bool // keys that are there
	prefixes []string                 // of lists
	digests  []Digest                 // by prefix

	acked []claim // by revision; those in front are done
	reads []read
	lists []list
}

func (j *judge) prepare() {
	l := j.l
	j.acked, j.reads, j.lists = slices.Clone(l.acked), slices.Clone(l.reads), slices.Clone(l.lists)
	slices.SortFunc(j.acked, func(a, b claim) int { return cmp.Compare(a.rev, b.rev) })
	slices.SortFunc(j.reads, func(a, b read) int { return cmp.Compare(a.rev, b.rev) })
	slices.SortFunc(j.lists, func(a, b list) int { return cmp.Compare(a.rev, b.rev) })
	for _, x := range j.lists {
		if !slices.Contains(j.prefixes, x.prefix) {
			j.prefixes = append(j.prefixes, x.prefix)
		}
	}
	j.digests = make([]Digest, len(j.prefixes))
}

// replay walks the log, a revision at a time.
func (j *judge) replay() {
	log := j.l.witness.log
	j.look(1)
	for len(log) > 0 {
		rev := log[0].mod
		n := 1
		for n < len(log) && log[n].mod == rev {
			n++
		}
		j.claims(rev, log[:n])
		for i := range log[:n] {
			j.apply(&log[i])
		}
		j.look(rev)
		log = log[n:]
	}
	for _, c := range j.acked {
		j.l.problem("lost: %s was acknowledged at revision %d, and the log ends with %d", j.said(c), c.rev, j.l.witness.Last())
	}
	for _, r := range j.reads {
		j.l.problem("a get of %s was answered at revision %d, and the log ends with %d", j.l.keys[r.key], r.rev, j.l.witness.Last())
	}
	for _, x := range j.lists {
		j.l.problem("a list of %s was answered at revision %d, and the log ends with %d", x.prefix, x.rev, j.l.witness.Last())
	}
}

func (j *judge) said(c claim) string {
	if c.deletes {
		return "the deletion of " + j.l.keys[c.key]
	}
	return "the write of " + j.l.keys[c.key]
}

// claims finds out whose a revision is.
func (j *judge) claims(rev int64, events []event) {
	claimed := false
	for ; len(j.acked) > 0 && j.acked[0].rev <= rev; j.acked = j.acked[1:] {
		c := j.acked[0]
		switch {
		case c.rev < rev: // the log is dense, so it is one that two were given
			j.l.problem("revision %d was given to %s too", c.rev, j.said(c))
		case claimed:
			j.l.problem("revision %d was given to %s too", rev, j.said(c))
		case len(events) != 1 || !c.is(events[0]):
			j.l.problem("lost: %s was acknowledged at revision %d, where the log has %s", j.said(c), rev, j.tell(events))
		}
		claimed = true
	}
	if claimed || len(events) == 1 && j.wasUnknown(events[0]) {
		return
	}
	if why := j.expiry(rev, events); why != "" {
		j.l.problem("revision %d is nobody's: %s (%s)", rev, j.tell(events), why)
	}
}

// is says whether an event is the write.
func (c claim) is(e event) bool {
	return c.key == e.key && c.deletes == e.deleted && c.value == e.value && c.lease == e.lease
}

// wasUnknown finds the write of which nobody knew; it happened, and cannot again.
func (j *judge) wasUnknown(e event) bool {
	open := j.l.unknown[e.key]
	i := slices.IndexFunc(open, func(c claim) bool { return c.is(e) && c.rev < e.mod })
	if i < 0 {
		return false
	}
	j.l.unknown[e.key] = slices.Delete(open, i, i+1)
	return true
}

// expiry says why a revision cannot be the end of a lease, or nothing.
func (j *judge) expiry(rev int64, events []event) string {
	id := j.state[events[0].key].lease
	if id == 0 {
		return "no key of a lease"
	}
	for _, e := range events {
		if !e.deleted || j.state[e.key].lease != id {
			return fmt.Sprintf("not only deletions of lease %x", id)
		}
	}
	if n := len(j.byLease[id]); n != len(events) {
		return fmt.Sprintf("%d of the %d keys of lease %x", len(events), n, id)
	}
	granted, ok := j.l.leases[id]
	if !ok {
		return fmt.Sprintf("lease %x was not granted", id)
	}
	if due, at := granted.granted.Add(granted.ttl), j.l.witness.at[rev-2]; at.Before(due) {
		return fmt.Sprintf("lease %x ends %v too early", id, due.Sub(at))
	}
	return ""
}

func (j *judge) tell(events []event) string {
	var b strings.Builder
	for i, e := range events[:min(3, len(events))] {
		if i > 0 {
			b.WriteString(", ")
		}
		verb := "put"
		if e.deleted {
			verb = "deletion"
		}
		fmt.Fprintf(&b, "the %s of %s", verb, j.l.keys[e.key])
	}
	if more := len(events) - 3; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// apply has the state follow, and checks that the event follows from it.
func (j *judge) apply(e *event) {
	key := j.l.keys[e.key]
	old, there := j.state[e.key]
	if there {
		e.prev = old.sum(key)
		delete(j.byLease[old.lease], e.key)
	}
	want := item{create: e.mod, mod: e.mod, version: 1, lease: e.lease, value: e.value}
	switch {
	case e.deleted:
		want = item{mod: e.mod}
		if !there {
			j.l.problem("revision %d deletes %s, which is not there", e.mod, key)
		}
	case there:
		want.create, want.version = old.create, old.version+1
	}
	if e.item != want {
		j.l.problem("revision %d has %s as %+v, and it should be %+v", e.mod, key, e.item, want)
	}
	for i, prefix := range j.prefixes {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if there {
			j.digests[i].cut(e.prev)
		}
		if !e.deleted {
			j.digests[i].add(e.sum(key))
		}
	}
	if e.deleted {
		delete(j.state, e.key)
		return
	}
	j.state[e.key] = e.item
	if e.lease != 0 {
		if j.byLease[e.lease] == nil {
			j.byLease[e.lease] = make(map[keyID]bool)
		}
		j.byLease[e.lease][e.key] = true
	}
}

// look compares the reads of a revision with the state.
func (j *judge) look(rev int64) {
	for ; len(j.reads) > 0 && j.reads[0].rev <= rev; j.reads = j.reads[1:] {
		r := j.reads[0]
		var want uint64
		if it, ok := j.state[r.key]; ok {
			want = it.sum(j.l.keys[r.key])
		}
		if r.sum != want {
			j.l.problem("a get of %s at revision %d is not what was there (%+v)", j.l.keys[r.key], r.rev, j.state[r.key])
		}
	}
	for ; len(j.lists) > 0 && j.lists[0].rev <= rev; j.lists = j.lists[1:] {
		x := j.lists[0]
		want := j.digests[slices.Index(j.prefixes, x.prefix)]
		if x.digest.Unordered || x.digest.Count != want.Count || x.digest.Sum != want.Sum {
			j.l.problem("a list of %s at revision %d has %d keys, sum %x, unordered %v; there were %d, sum %x",
				x.prefix, x.rev, x.digest.Count, x.digest.Sum, x.digest.Unordered, want.Count, want.Sum)
		}
	}
}

// follower compares what a watch got with the log.
func (j *judge) follower(f *Follower) {
	for _, p := range f.Problems {
		j.l.problem("watch %s: %s", f.Name, p)
	}
	var want stream
	promises := f.Promises
	kept := func(before int64) { // promises of revisions below this one
		for ; len(promises) > 0 && promises[0].Revision < before; promises = promises[1:] {
			if p := promises[0]; p.Events != want.Events {
				j.l.problem("watch %s: promised revision %d after %d events, and there were %d since %d", f.Name, p.Revision, p.Events, want.Events, f.From)
			}
		}
	}
	if n := len(f.Promises); n > 0 {
		f.Last = max(f.Last, f.Promises[n-1].Revision)
	}
	first := eventAt(j.l.witness.log, f.From)
	for _, e := range j.l.witness.log[first:] {
		if e.mod > f.Last {
			break
		}
		key := j.l.keys[e.key]
		if !strings.HasPrefix(key, f.Prefix) {
			continue
		}
		kept(e.mod)
		prev := uint64(0)
		if f.Prev {
			prev = e.prev
		}
		want.add(eventSum(e.deleted, e.sum(key), prev))
	}
	kept(1 << 62)
	if want != f.stream {
		j.l.problem("watch %s of %s from revision %d to %d got %d events with hash %x; there were %d with hash %x",
			f.Name, f.Prefix, f.From, f.Last, f.Events, f.Hash, want.Events, want.Hash)
	}
	if f.Compacted != 0 && f.Compacted <= f.Last {
		j.l.problem("watch %s was told that %d was compacted, and had events up to %d", f.Name, f.Compacted, f.Last)
	}
}

// eventAt is the index of the first event of a revision or of a later one.
func eventAt(log []event, rev int64) int {
	i, _ := slices.BinarySearchFunc(log, rev, func(e event, rev int64) int { return cmp.Compare(e.mod, rev) })
	return i
}
