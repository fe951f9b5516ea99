package backend

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// machine is a state machine that checkpoints into a file.
type machine struct {
	t     testing.TB
	db    *DB
	state *mvcc.State
	index uint64

	aheadMax  int // rows of a part that is put ahead; 0: none are
	deadMax   int // as in Batch
	deadBytes int64
	left      []mvcc.RowKey // of Dead, by the last checkpoint
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, state: mvcc.New(mvcc.Options{})}
	m.open(filepath.Join(t.TempDir(), "snap", "db"))
	return m
}

func (m *machine) open(path string) {
	m.t.Helper()
	db, err := Open(path, Options{MapBytes: 1 << 24, FreelistBytes: 1})
	if err != nil {
		m.t.Fatal(err)
	}
	m.db = db
	m.t.Cleanup(func() { m.db.Close() })
}

func (m *machine) apply(r *pb.InternalRaftRequest) mvcc.Result {
	m.index++
	return m.state.Apply(mvcc.Entry{Index: m.index, Term: 1, Request: r})
}

// step does one random thing.
func (m *machine) step(rng *rand.Rand) {
	key := fmt.Appendf(nil, "k%02d", rng.IntN(40))
	switch rng.IntN(20) {
	case 0:
		m.apply(&pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: rng.Int64N(9) + 1, TTL: 10}})
	case 1:
		m.apply(&pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: rng.Int64N(9) + 1}})
	case 2:
		m.apply(&pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: max(1, int64(m.state.Revision())-rng.Int64N(60))}})
	case 3, 4:
		m.apply(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: key}})
	case 5:
		m.state.CompactStep(rng.IntN(50) + 1)
	case 6, 7:
		action := pb.AlarmRequest_DEACTIVATE
		if rng.IntN(5) == 0 {
			action = pb.AlarmRequest_ACTIVATE
		}
		m.apply(&pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: action, MemberID: 1, Alarm: pb.AlarmType_NOSPACE}})
	default:
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: key, Value: make([]byte, rng.IntN(300)), Lease: rng.Int64N(9)}})
	}
}

func (m *machine) checkpoint() {
	m.t.Helper()
	c := m.state.BeginCheckpoint()
	b := Batch{Index: c.Index, Term: c.Term, Hash: c.View.Hash(), Puts: c.Puts(), Dead: append(m.left, c.Dead()...), DeadMax: m.deadMax, DeadBytesMax: m.deadBytes, LeasesPut: c.LeasesPut(),
		LeasesDeleted: c.LeasesDeleted(), Auth: c.Auth(), CompactScheduled: c.CompactScheduled, CompactFinished: c.CompactFinished,
		ConfState: []byte(`{"voters":[1]}`), Members: map[string][]byte{"1": []byte(`{"id":1}`)}, ClusterVersion: c.View.ClusterVersion()}
	if len(c.View.Alarms()) > 0 {
		b.Alarms = [][]byte{{8, 1, 16, 1}}
	}
	slices.SortFunc(b.Dead, mvcc.RowKey.Compare)
	var err error
	if m.aheadMax > 0 {
		b.Puts, err = m.putAhead(b.Puts)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	dead, err := m.db.Write(b)
	m.state.EndCheckpoint(c, err == nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.left = b.Dead[dead:]
}

// load is the state that a file holds.
func load(db *DB) (state *mvcc.State, err error) {
	err = db.Load(func(c Content, rows []iter.Seq2[mvcc.Row, error]) (err error) {
		if !c.Trusted {
			return errors.New("the sums belong to another index")
		}
		state, err = mvcc.Load(mvcc.Loader{Index: c.Index, Term: c.Term, Hash: c.Hash, Rows: rows, RowsHint: c.Rows, Leases: c.Leases, Alarms: c.Alarms,
			CompactScheduled: c.CompactScheduled, CompactFinished: c.CompactFinished, ClusterVersion: c.ClusterVersion, Auth: c.Auth}, mvcc.Options{})
		return err
	})
	return state, err
}

func sameState(t *testing.T, got, want *mvcc.View) {
	t.Helper()
	if got.Index() != want.Index() || got.Hash() != want.Hash() || got.Revision() != want.Revision() || got.Compacted() != want.Compacted() ||
		got.KeyCount() != want.KeyCount() || len(got.Leases()) != len(want.Leases()) || len(got.Alarms()) != len(want.Alarms()) {
		t.Fatalf("loaded state differs: index %d %d, hash %x %x, revision %d %d, compacted %d %d, keys %d %d, leases %v %v, alarms %v %v",
			got.Index(), want.Index(), got.Hash(), want.Hash(), got.Revision(), want.Revision(), got.Compacted(), want.Compacted(),
			got.KeyCount(), want.KeyCount(), got.Leases(), want.Leases(), got.Alarms(), want.Alarms())
	}
	gotHash, _, _, err := got.HashKV(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	wantHash, _, _, err := want.HashKV(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if gotHash != wantHash {
		t.Fatalf("rows have hash %d, want %d", gotHash, wantHash)
	}
}

// TestRandomCheckpoints: after each checkpoint, and each defragmentation, the file holds the state, whatever happened in between.
func TestRandomCheckpoints(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	for range 60 {
		for range rng.IntN(60) {
			m.step(rng)
		}
		if m.index == 0 {
			continue
		}
		m.deadMax, m.aheadMax = rng.IntN(20), rng.IntN(20)
		m.checkpoint()
		if rng.IntN(10) == 0 {
			if err := m.defragment(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := load(m.db)
		if err != nil {
			t.Fatal(err)
		}
		sameState(t, got.Publish(), m.state.Publish())
		if c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil || !c.Trusted {
			t.Fatalf("check: %v, trusted %t", err, c.Trusted)
		}
		if rng.IntN(5) == 0 { // go on from what was loaded
			m.state, m.left = got, nil
		}
	}
}

// TestDeadInParts: each Write takes a bounded part of the dead rows, and the file holds the same state after each.
func TestDeadInParts(t *testing.T) {
	const rows, rowBytes = 1000, 7000 // two on a page
	m := newMachine(t)
	for range rows {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, rowBytes)}})
	}
	m.checkpoint()
	m.compact()
	want := m.state.Publish()
	for _, part := range []struct {
		max      int
		bytes    int64
		left     int
		finished mvcc.Revision
	}{
		{10, 0, rows - 11, -1},
		{rows, 1, rows - 13, -1},               // a page at least
		{rows, 20 * pageBytes, rows - 333, -1}, // of pages that lose all rows an eighth counts
		{12, 20 * pageBytes, rows - 345, -1},
		{0, 0, 0, want.Compacted()}, // no bound
	} {
		m.deadMax, m.deadBytes = part.max, part.bytes
		m.checkpoint()
		if len(m.left) != part.left {
			t.Errorf("at most %d rows a part: %d are left, want %d", part.max, len(m.left), part.left)
		}
		got, err := load(m.db)
		if err != nil {
			t.Fatal(err)
		}
		sameState(t, got.Publish(), want)
		c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) })
		if err != nil || c.CompactScheduled != want.Compacted() || c.CompactFinished != part.finished || c.Rows != part.left+1 {
			t.Errorf("with %d rows left: %d rows, compaction scheduled %d, finished %d, %v", part.left, c.Rows, c.CompactScheduled, c.CompactFinished, err)
		}
	}
}

// TestFailedWrite: a checkpoint that finds no room changes nothing, and the next one holds what it would have held.
func TestFailedWrite(t *testing.T) {
	m := newMachine(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		m.step(rng)
	}
	m.checkpoint()
	before := m.state.Publish()
	for range 100 {
		m.step(rng)
	}
	c := m.state.BeginCheckpoint()
	broken := func(yield func(*mvcc.Version) bool) {
		for v := range c.Puts() {
			if !yield(v) {
				return
			}
		}
		panic("no room") // what bbolt does is an error of the transaction all the same
	}
	_, err := m.db.Write(Batch{Index: c.Index, Term: c.Term, Puts: broken, Dead: c.Dead(), Members: map[string][]byte{}})
	m.state.EndCheckpoint(c, false)
	if err == nil {
		t.Fatal("the write did not fail")
	}
	got, err := load(m.db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), before)
	m.checkpoint()
	got, err = load(m.db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), m.state.Publish())
}

// TestFlips: of the bits that flip anywhere in the file, each is found, or was in a place that holds nothing.
func TestFlips(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	for range 400 {
		m.step(rng)
	}
	flips(t, m, rng)
}

// TestFlipsInParts is TestFlips of a file that is read in parts.
func TestFlipsInParts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	m := newMachine(t)
	for i := range 3*rowsPerPartMin + 100 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%5000), Value: make([]byte, rng.IntN(300))}})
	}
	m.checkpoint()
	parts := 0
	err := m.db.Load(func(c Content, rows []iter.Seq2[mvcc.Row, error]) error {
		parts = len(rows)
		return nil
	})
	if err != nil || parts != 3 {
		t.Fatalf("%d parts, %v", parts, err)
	}
	flips(t, m, rng)
}

func flips(t *testing.T, m *machine, rng *rand.Rand) {
	m.checkpoint()
	want := m.state.Publish()
	path, size := m.db.Path(), int(m.db.Size()) // bbolt makes the file larger than what it uses
	metas := 2 * m.db.pageSize()                // each with a checksum, the older one for when the newer is wrong
	if err := m.db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	const flips = 200
	for range flips {
		at := rng.IntN(size-metas) + metas
		damaged := slices.Clone(whole)
		damaged[at] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(path, damaged[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := openAndLoad(path)
		var corrupt *CorruptError
		switch {
		case errors.As(err, &corrupt):
			found++
			if corrupt.File != path {
				t.Errorf("flip at %d: %v", at, err)
			}
		case err != nil:
			t.Errorf("flip at %d: not a corruption: %v", at, err)
		default:
			sameState(t, got.Publish(), want)
		}
	}
	t.Logf("%d of %d flips were in what the file holds", found, flips)
	if found == 0 {
		t.Error("no flip was found")
	}
}

// TestPageSize: a file keeps the size of its pages until it is defragmented, and holds the same under each.
func TestPageSize(t *testing.T) {
	for size := 4 << 10; size <= pageBytesMax; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			m := &machine{t: t, state: mvcc.New(mvcc.Options{})}
			path := filepath.Join(t.TempDir(), "snap", "db")
			db, err := Open(path, Options{MapBytes: 1 << 24, PageBytes: size})
			if err != nil {
				t.Fatal(err)
			}
			m.db = db
			rng := rand.New(rand.NewPCG(3, uint64(size)))
			holds := func(pageSize int) {
				t.Helper()
				for range 200 {
					m.step(rng)
				}
				m.checkpoint()
				got, err := load(m.db)
				if err != nil {
					t.Fatal(err)
				}
				sameState(t, got.Publish(), m.state.Publish())
				if got := m.db.pageSize(); got != pageSize {
					t.Errorf("pages of %d bytes, want %d", got, pageSize)
				}
			}
			holds(size)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			m.open(path)
			holds(size)
			if err := m.defragment(); err != nil {
				t.Fatal(err)
			}
			holds(pageBytes)
		})
	}
}

func openAndLoad(path string) (*mvcc.State, error) {
	db, err := Open(path, Options{MapBytes: 1 << 24})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return load(db)
}

// TestWrittenByOthers: when etcd has written to the file, our sums say nothing, and the next write makes them anew.
func TestWrittenByOthers(t *testing.T) {
	m := newMachine(t)
	rng := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		m.step(rng)
	}
	m.checkpoint()
	err := m.db.update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketMeta).Put(metaIndex, []byte{0, 0, 0, 0, 0, 0, 9, 9}); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put([]byte("newKey"), []byte("x"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil || c.Trusted {
		t.Fatalf("check: %v, trusted %t", err, c.Trusted)
	}
	for range 50 {
		m.step(rng)
	}
	m.index += 100000
	m.apply(nil)
	m.checkpoint()
	if c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil || !c.Trusted {
		t.Fatalf("check: %v, trusted %t", err, c.Trusted)
	}
}
