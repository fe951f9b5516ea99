package mvcc

import (
	"fmt"
	"iter"
	"testing"
)

// TestLoadLeavesOutDead: of each key the newest row at or below the compacted revision becomes a version, and those above it; no other does,
// if the parts are read one behind the other, and nearly none if several are at a time.
func TestLoadLeavesOutDead(t *testing.T) {
	const keys, rounds, perPart = 500, 6, 250
	var rows []Row
	for round := range rounds {
		for i := range keys {
			rev := int64(2 + round*keys + i)
			rows = append(rows, storedRow(row{key: fmt.Sprint("key", i), value: "some value", create: int64(2 + i), mod: rev, ver: int64(1 + round), tomb: i == 7 && round == 3}))
		}
	}
	var split []iter.Seq2[Row, error]
	for i := 0; i < len(rows); i += perPart {
		split = append(split, rowsOf(rows[i:i+perPart], nil))
	}
	load := func(l Loader) (versions, dead int) {
		t.Helper()
		l.Rows = split
		s := New(Options{})
		s.compacted = max(l.CompactScheduled, l.CompactFinished)
		chunks, err := s.loadRows(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chunks {
			versions += len(c)
		}
		for _, c := range s.pending.dead {
			dead += len(c)
		}
		return versions, dead
	}
	const third = 1 + 3*keys // the last revision of the third round
	for name, c := range map[string]struct {
		l        Loader
		versions int
	}{
		"never compacted":            {Loader{CompactScheduled: NeverCompacted, CompactFinished: NeverCompacted, RowsHint: len(rows), Readers: 1}, rounds * keys},
		"compacted":                  {Loader{CompactScheduled: third, CompactFinished: NeverCompacted, RowsHint: len(rows), Readers: 1}, 4 * keys},
		"compacted ahead":            {Loader{CompactScheduled: 5, CompactFinished: 5, CompactAhead: third + keys, RowsHint: len(rows), Readers: 1}, 3 * keys},
		"compacted to the end":       {Loader{CompactScheduled: rounds*keys + 1, CompactFinished: 5, RowsHint: len(rows), Readers: 1}, keys},
		"it is not known how many":   {Loader{CompactScheduled: rounds*keys + 1, CompactFinished: 5, Readers: 1}, rounds * keys},
		"fewer than there are":       {Loader{CompactScheduled: rounds*keys + 1, CompactFinished: 5, RowsHint: 1, Readers: 1}, -1},
		"several parts at a time":    {Loader{CompactScheduled: rounds*keys + 1, CompactFinished: 5, RowsHint: len(rows), Readers: 4}, -1},
		"all of the parts at a time": {Loader{CompactScheduled: rounds*keys + 1, CompactFinished: 5, RowsHint: len(rows)}, -1},
	} {
		versions, dead := load(c.l)
		if versions+dead != len(rows) || versions < keys || c.versions >= 0 && versions != c.versions {
			t.Errorf("%s: %d versions and %d dead rows of %d, want %d versions", name, versions, dead, len(rows), c.versions)
		}
	}
}
