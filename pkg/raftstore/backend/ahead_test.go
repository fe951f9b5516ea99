package backend

import (
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// putAhead puts all rows but those of the last part ahead.
func (m *machine) putAhead(rows iter.Seq[*mvcc.Version]) (rest iter.Seq[*mvcc.Version], err error) {
	left := slices.Collect(rows)
	for err == nil && len(left) > m.aheadMax {
		err = m.db.PutAhead(left[:m.aheadMax])
		left = left[m.aheadMax:]
	}
	return slices.Values(left), err
}

// copyOf opens a copy of the file as it is now.
func (m *machine) copyOf(readOnly bool) *DB {
	m.t.Helper()
	name := filepath.Join(m.t.TempDir(), "db")
	content, err := os.ReadFile(m.db.Path())
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		m.t.Fatal(err)
	}
	db, err := Open(name, Options{MapBytes: 1 << 24, ReadOnly: readOnly})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { db.Close() })
	return db
}

// TestFirstAhead: a first checkpoint that does not come to its end leaves a file at index 0.
func TestFirstAhead(t *testing.T) {
	m := newMachine(t)
	m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("a")}})
	db, err := Open(filepath.Join(t.TempDir(), "db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PutAhead(slices.Collect(m.state.BeginCheckpoint().Puts())); err != nil {
		t.Fatal(err)
	}
	if index, term, err := db.Applied(); err != nil || index != 0 || term != 0 {
		t.Errorf("applied: index %d, term %d, %v", index, term, err)
	}
	if err := db.Load(func(c Content, _ []iter.Seq2[mvcc.Row, error]) error {
		if c.Index != 0 || c.Term != 0 {
			t.Errorf("content: %+v", c)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestGivenUpAhead: a checkpoint that ends after any of its parts leaves the state before, and once its rows are dropped the next one is
// as if it had not been.
func TestGivenUpAhead(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	m.aheadMax = 7
	before := m.state.Publish()
	for range 12 {
		for range 20 + rng.IntN(60) {
			m.step(rng)
		}
		c := m.state.BeginCheckpoint()
		parts := slices.Collect(slices.Chunk(slices.Collect(c.Puts()), m.aheadMax))
		parts = parts[:rng.IntN(len(parts)+1)]
		for _, p := range parts {
			if err := m.db.PutAhead(p); err != nil {
				t.Fatal(err)
			}
		}
		m.state.EndCheckpoint(c, false)
		m.looksLike(before, len(parts) > 0)
		if len(parts) > 0 { // as a removal does it
			b := Batch{Index: before.Index(), Term: before.Term(), Hash: before.Hash(), CompactScheduled: before.Compacted(), CompactFinished: mvcc.NeverCompacted,
				ConfState: []byte(`{"voters":[1]}`), Members: map[string][]byte{"1": []byte(`{"id":1}`)}, Alarms: alarmsOf(before)}
			if before.Index() > 0 {
				if _, err := m.db.Write(b); err != nil {
					t.Fatal(err)
				}
				m.looksLike(before, true)
			}
		}
		for more := len(parts) > 0; more; {
			var err error
			if more, err = m.db.DropAhead(1 + rng.IntN(20)); err != nil {
				t.Fatal(err)
			}
			m.looksLike(before, more)
		}
		m.checkpoint()
		before = m.state.Publish()
		m.looksLike(before, false)
	}
}

func alarmsOf(v *mvcc.View) [][]byte {
	if len(v.Alarms()) == 0 {
		return nil
	}
	return [][]byte{{8, 1, 16, 1}}
}

// looksLike compares the file with a state, and checks it, as it is and opened for reading only.
func (m *machine) looksLike(want *mvcc.View, ahead bool) {
	t := m.t
	t.Helper()
	if got, err := m.db.Ahead(); err != nil || got != ahead {
		t.Fatalf("rows ahead: %t, %v", got, err)
	}
	if want.Index() == 0 && !ahead {
		return // no facts yet
	}
	for _, db := range []*DB{m.db, m.copyOf(true)} {
		got, err := load(db)
		if err != nil {
			t.Fatal(err)
		}
		sameState(t.(*testing.T), got.Publish(), want)
		if index, term, err := db.Applied(); err != nil || index != want.Index() || term != want.Term() {
			t.Fatalf("applied: index %d, term %d, %v; want %d, %d", index, term, err, want.Index(), want.Term())
		}
		if c, err := db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil || !c.Trusted {
			t.Fatalf("check: %v, trusted %t", err, c.Trusted)
		}
	}
}

// TestRestoreAhead: a restore from a file that a crash has left keeps the rows of its state only.
func TestRestoreAhead(t *testing.T) {
	m := newMachine(t)
	for range 10 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("a")}})
	}
	m.checkpoint()
	want, err := m.db.Survey()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("b")}})
	}
	c := m.state.BeginCheckpoint()
	if err := m.db.PutAhead(slices.Collect(c.Puts())); err != nil {
		t.Fatal(err)
	}
	m.state.EndCheckpoint(c, false)
	db := m.copyOf(false)
	for _, restored := range []bool{false, true} {
		if restored {
			b := Batch{Index: 1, Term: 1, CompactScheduled: mvcc.NeverCompacted, CompactFinished: mvcc.NeverCompacted}
			if err := db.Restore(b); err != nil {
				t.Fatal(err)
			}
		}
		got, err := db.Survey()
		if err != nil {
			t.Fatal(err)
		}
		if got.Sum != want.Sum || got.Revision != want.Revision {
			t.Errorf("restored %t: revision %d, sum %x, before %d, %x", restored, got.Revision, got.Sum, want.Revision, want.Sum)
		}
	}
	if ahead, err := db.Ahead(); err != nil || ahead {
		t.Errorf("restored, and rows are ahead: %t, %v", ahead, err)
	}
	status, err := db.Status()
	if err != nil || status.Revision != int64(want.Revision) {
		t.Errorf("restored: status %+v, %v", status, err)
	}
}
