package backend

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// bucketRow is a row as bbolt's cursor gives it.
type bucketRow struct {
	key   mvcc.RowKey
	value []byte
}

// frozen begins to read rows, and answers all that bbolt finds in the same transaction.
func frozen(t testing.TB, db *DB) (*rowReader, []bucketRow) {
	t.Helper()
	r, err := db.Rows().Begin()
	if err != nil {
		t.Fatal(err)
	}
	var rows []bucketRow
	err = r.(*rowReader).tx.Bucket(bucketKey).ForEach(func(k, v []byte) error {
		key, err := mvcc.ParseRowKey(k)
		rows = append(rows, bucketRow{key, bytes.Clone(v)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.(*rowReader), rows
}

// readRows reads rows in any order, and tells of some before.
func readRows(rng *rand.Rand, r *rowReader, rows []bucketRow) error {
	dst := []byte("before")
	for n, i := range rng.Perm(len(rows)) {
		if n%50 == 0 {
			var ahead []mvcc.RowAhead
			for range rng.IntN(40) {
				row := rows[rng.IntN(len(rows))]
				ahead = append(ahead, mvcc.RowAhead{Row: row.key, Bytes: len(row.value)})
			}
			r.ReadAhead(ahead)
		}
		got, err := r.AppendRow(dst, rows[i].key)
		if err != nil || !bytes.Equal(got[:len(dst)], dst) || !bytes.Equal(got[len(dst):], rows[i].value) {
			return fmt.Errorf("row %v of %d bytes: got %d bytes, %w", rows[i].key, len(rows[i].value), len(got)-len(dst), err)
		}
		none := rows[i].key
		if none.Sub += 7; rng.IntN(2) == 0 {
			none.Sub, none.Main = 0, none.Main+mvcc.Revision(1e6)
		}
		if got, err := r.AppendRow(dst, none); !errors.Is(err, mvcc.ErrRowGone) || !bytes.Equal(got, dst) {
			return fmt.Errorf("row %v, which is not there: %d bytes, %w", none, len(got)-len(dst), err)
		}
	}
	return nil
}

// putAny puts one of a few keys, with a value of any size from nothing to several pages.
func (m *machine) putAny(rng *rand.Rand) {
	size := rng.IntN(300)
	switch rng.IntN(20) {
	case 0:
		size = rng.IntN(200 << 10)
	case 1, 2, 3, 4:
		size = rng.IntN(20 << 10)
	}
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", rng.IntN(400)), Value: value}})
}

// TestRowsByPages: each row that bbolt finds is found by its pages, and no other.
func TestRowsByPages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, page := range []int{4 << 10, 16 << 10} {
		rng := rand.New(rand.NewPCG(seed, uint64(page)))
		m := &machine{t: t, state: mvcc.New(mvcc.Options{})}
		db, err := Open(filepath.Join(t.TempDir(), "snap", "db"), Options{MapBytes: 1 << 26, PageBytes: page})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		m.db = db
		for round := range 12 {
			for range 1 + round*60 {
				m.putAny(rng)
			}
			if round == 9 {
				m.compact()
			}
			m.checkpoint()
			r, rows := frozen(t, db)
			if (r.finder == nil) != (r.tx.Bucket(bucketKey).Root() == 0) {
				t.Fatal("read by pages: ", r.finder != nil)
			}
			if err := readRows(rng, r, rows); err != nil {
				t.Fatalf("pages of %d bytes, %d rows: %v", page, len(rows), err)
			}
			r.Close()
		}
	}
}

// TestRowsThatComeLater: a version may leave memory behind a checkpoint that comes after a reader has begun; its row is found as well.
func TestRowsThatComeLater(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := newMachine(t)
	for _, puts := range []int{1, 200} { // a bucket without pages of its own, and one with
		for range puts {
			m.putAny(rng)
		}
		m.checkpoint()
		early, _ := frozen(t, m.db)
		m.putAny(rng)
		m.checkpoint()
		late, rows := frozen(t, m.db)
		if err := readRows(rng, early, rows); err != nil {
			t.Error(err)
		}
		early.Close()
		late.Close()
	}
}

// TestRowsByPagesBesideWrites: what a reader has frozen stays as it is, whatever is written, deleted and defragmented meanwhile.
func TestRowsByPagesBesideWrites(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	for range 200 {
		m.putAny(rng)
	}
	m.checkpoint()
	for round := range 6 {
		var readers sync.WaitGroup
		for n := range 3 {
			r, rows := frozen(t, m.db)
			rng := rand.New(rand.NewPCG(seed, uint64(10*round+n)))
			readers.Go(func() {
				defer r.Close()
				for range 3 {
					if err := readRows(rng, r, rows); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 8 {
			for range 30 {
				m.putAny(rng)
			}
			if i%2 == 1 {
				m.compact()
			}
			m.checkpoint()
			if i == 5 {
				if err := m.defragment(); err != nil {
					t.Fatal(err)
				}
			}
		}
		readers.Wait()
	}
}

// TestLoadUsesBuffersAgain: a Load takes a few buffers, however much there is to read, and whether its rows are the state's or ahead of it.
func TestLoadUsesBuffersAgain(t *testing.T) {
	const rows, valueBytes = 1500, 8 << 10
	m := newMachine(t)
	m.put(0)
	m.checkpoint()
	for i := range rows {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, valueBytes)}})
	}
	c := m.state.BeginCheckpoint()
	if err := m.db.PutAhead(slices.Collect(c.Puts())); err != nil {
		t.Fatal(err)
	}
	m.state.EndCheckpoint(c, false)
	buffers := func(want int) {
		t.Helper()
		tx, err := m.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		l := &loader{db: m.db, handle: tx.DB(), tx: tx, at: -1}
		if _, err := l.content(); err != nil {
			t.Fatal(err)
		}
		got := 0
		s := &scan{part: l.split(0)[0], yield: func(mvcc.Row, error) bool { got++; return true }}
		if err := s.run(); err != nil || got != want {
			t.Fatalf("%d rows, want %d, %v", got, want, err)
		}
		if n := len(s.buffers); n > 6 {
			t.Errorf("%d buffers for %d rows", n, got)
		}
	}
	buffers(1)
	for more := true; more; {
		var err error
		if more, err = m.db.DropAhead(math.MaxInt); err != nil {
			t.Fatal(err)
		}
	}
	m.checkpoint()
	buffers(1 + rows)
}

// TestDamagedLengths: a page that says it is longer than it is takes no more memory than its rows, and is found.
func TestDamagedLengths(t *testing.T) {
	m := newMachine(t)
	for range 2000 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3000)}})
	}
	m.checkpoint()
	r, rows := frozen(t, m.db)
	defer r.Close()
	place, err := r.finder.descend(rows[0].key.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.db.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	damage := func(id uint64) (undo func()) {
		at := int64(id)*int64(m.db.pageSize()) + 12
		if _, err := f.WriteAt([]byte{64}, at); err != nil {
			t.Fatal(err)
		}
		r.finder.restart(r.finder.root)
		return func() { _, _ = f.WriteAt([]byte{0}, at) }
	}
	undo := damage(place.id)
	if got, err := r.AppendRow(nil, rows[0].key); err != nil || !bytes.Equal(got, rows[0].value) || cap(r.finder.leaf.b) > 2*leafHintBytes {
		t.Errorf("%d bytes, %v, %d bytes held", len(got), err, cap(r.finder.leaf.b))
	}
	reader := pageReader{file: m.db.current.raw, path: m.db.Path(), pageBytes: int64(m.db.pageSize())}
	if b, err := reader.page(place.id, 0); err != nil || len(b) > m.db.pageSize() {
		t.Errorf("a copy reads %d bytes, %v", len(b), err)
	}
	var corrupt *CorruptError
	if _, err := load(m.db); !errors.As(err, &corrupt) || corrupt.File != m.db.Path() {
		t.Errorf("load: %v", err)
	}
	undo()
	defer damage(r.finder.root)()
	if _, err := r.AppendRow(nil, rows[0].key); !errors.As(err, &corrupt) {
		t.Errorf("a branch: %v", err)
	}
}

// TestRowsByPagesOfADamagedFile: whatever has become of the pages, a row is read or an error says that it is not, and reading ends.
func TestRowsByPagesOfADamagedFile(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	for range 2000 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, rng.IntN(3000))}})
	}
	m.checkpoint()
	f, err := os.OpenFile(m.db.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, rows := frozen(t, m.db)
	defer r.Close()
	var leaves []uint64
	for _, row := range rows {
		place, err := r.finder.descend(row.key.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, place.id)
	}
	pages := m.db.Size() / int64(m.db.pageSize())
	failed := 0
	for range 100 {
		at := rng.Int64N(pages)*int64(m.db.pageSize()) + rng.Int64N(200) // headers and elements
		if at < 2*int64(m.db.pageSize()) {
			continue
		}
		var was, is [1]byte
		if _, err := f.ReadAt(was[:], at); err != nil {
			t.Fatal(err)
		}
		is[0] = was[0] ^ 1<<rng.IntN(8)
		if _, err := f.WriteAt(is[:], at); err != nil {
			t.Fatal(err)
		}
		r.finder.restart(r.finder.root)
		for i, row := range rows {
			got, err := r.AppendRow(nil, row.key)
			var corrupt *CorruptError
			switch {
			case errors.As(err, &corrupt), errors.Is(err, mvcc.ErrRowGone):
				failed++
			case err != nil:
				t.Fatalf("damage at %d, row %v: %v", at, row.key, err)
			case !bytes.Equal(got, row.value) && leaves[i] != uint64(at/int64(m.db.pageSize())): // there its hash tells
				t.Fatalf("damage at %d changes row %v in page %d", at, row.key, leaves[i])
			}
		}
		if _, err := f.WriteAt(was[:], at); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rows could not be read", failed)
	if failed == 0 {
		t.Error("no damage was met")
	}
}

// TestRowsBesideANewMapping: the file has outgrown its mapping, and the Write that maps it anew waits for a reader. What the reader has not
// frozen is found nevertheless, or both would wait for ever.
func TestRowsBesideANewMapping(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	m := &machine{t: t, state: mvcc.New(mvcc.Options{})}
	db, err := Open(filepath.Join(t.TempDir(), "snap", "db"), Options{MapBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m.db = db
	for _, puts := range []int{1, 20} { // a bucket without pages of its own, and one with
		for range puts {
			m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", m.index), Value: make([]byte, 2000*min(puts-1, 1))}})
		}
		m.checkpoint()
		early, _ := frozen(t, db)
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("late"), Value: []byte("came later")}})
		m.checkpoint()
		late, rows := frozen(t, db)
		late.Close()
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("large"), Value: make([]byte, min(puts, 4)*4<<20)}})
		c := m.state.BeginCheckpoint()
		written := make(chan error, 1)
		go func() {
			_, err := db.Write(Batch{Index: c.Index, Term: c.Term, Hash: c.View.Hash(), Puts: c.Puts(), CompactScheduled: -1, CompactFinished: -1,
				ConfState: []byte(`{"voters":[1]}`), Members: map[string][]byte{"1": []byte(`{"id":1}`)}})
			written <- err
		}()
		mapping := (*sync.RWMutex)(unsafe.Pointer(reflect.ValueOf(early.tx.DB()).Elem().FieldByName("mmaplock").UnsafeAddr()))
		for mapping.TryRLock() { // until somebody waits to write
			mapping.RUnlock()
			runtime.Gosched()
		}
		if err := readRows(rng, early, rows); err != nil {
			t.Error(err)
		}
		early.Close()
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		m.state.EndCheckpoint(c, true)
	}
}
