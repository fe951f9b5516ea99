package mvcc

// History calls fn for every event with from <= mod < to in the order of
// revision and sub revision, until it answers false. It costs what it answers.
//
// The error is ErrCompacted if from is below the compacted revision, or has
// come to be while fn was called: some events may then lack their Prev and are
// to be thrown away.
func (v *View) History(from, to Revision, fn func(Event) bool) error {
	if from < v.compacted || int64(from) < v.latest.compacted.Load() {
		return ErrCompacted
	}
	v.history.visit(from, to, func(x *Version) bool {
		e := Event{Version: x}
		if int64(x.mod) > v.latest.compacted.Load() {
			e.Prev = prevOf(x)
		}
		return fn(e)
	})
	if int64(from) < v.latest.compacted.Load() {
		return ErrCompacted
	}
	return nil
}
