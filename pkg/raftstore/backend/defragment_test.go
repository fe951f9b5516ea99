package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// defragment takes steps of 4 KiB.
func (m *machine) defragment() error { return m.defragmentBetween(4<<10, func() {}) }

// defragmentBetween takes steps and does something else between them.
func (m *machine) defragmentBetween(stepBytes int, between func()) error {
	d, err := m.db.StartDefragment()
	if err != nil {
		return err
	}
	for {
		between()
		if done, err := d.Step(stepBytes); done || err != nil {
			return err
		}
	}
}

// verify checks that the file holds the state, and nothing is wrong in it.
func (m *machine) verify(t *testing.T) {
	t.Helper()
	got, err := load(m.db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), m.state.Publish())
	if c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil || !c.Trusted {
		t.Fatalf("check: %v, trusted %t", err, c.Trusted)
	}
}

// TestDefragmentBesideWrites: whatever is written between the steps of a defragmentation, at whatever size of a step, the file holds the
// same as without.
func TestDefragmentBesideWrites(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range 30 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		m := newMachine(t)
		m.db.opts.PageBytes = 1 << (12 + rng.IntN(3))
		work := func(n int) {
			for range rng.IntN(n) + 1 {
				m.step(rng)
			}
			m.deadMax = rng.IntN(30)
			m.checkpoint()
		}
		for range rng.IntN(20) + 1 {
			work(100)
		}
		writes := 40 // a step does not copy more than is written beside it, at some sizes
		err := m.defragmentBetween(1<<rng.IntN(17), func() {
			if writes > 0 && rng.IntN(3) == 0 {
				writes--
				work(30)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		m.verify(t)
		work(30)
		m.verify(t)
		if m.db.defragmentation != nil {
			t.Error("the defragmentation is not over")
		}
	}
}

// TestDefragmentCatchesUp: rows that are deleted while the pages are written are deleted from the copy behind that, in steps that count what
// they do, and each once.
func TestDefragmentCatchesUp(t *testing.T) {
	m := newMachine(t)
	for i := range 2000 {
		if m.put(i % 100); i%100 == 99 {
			m.checkpoint()
		}
	}
	d, err := m.db.StartDefragment()
	for err == nil && d.next == nil {
		_, err = d.Step(16 << 10)
	}
	m.compact()
	m.checkpoint()
	deleted := len(d.changed)
	if err != nil || deleted < 1800 {
		t.Fatalf("%d rows are deleted behind the copy: %v", deleted, err)
	}
	for done, last := false, deleted; !done; last = len(d.again) {
		worked := d.Worked()
		if done, err = d.Step(1 << 10); err != nil {
			t.Fatal(err)
		}
		if len(d.changed) > 0 || len(d.again) > 0 && len(d.again) >= last {
			t.Fatalf("%d rows changed, %d in order, %d before", len(d.changed), len(d.again), last)
		}
		if got := d.Worked() - worked; !done && got < 1<<9 {
			t.Errorf("a step has worked off %d bytes", got)
		}
	}
	m.verify(t)
}

// TestDefragmentShrinks: what a compaction has freed is given back; rows larger than a page and than a step are copied.
func TestDefragmentShrinks(t *testing.T) {
	m := newMachine(t)
	for i := range 2000 {
		m.put(i % 100)
		if i%100 == 99 {
			m.checkpoint()
		}
	}
	m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("large"), Value: make([]byte, 100<<10)}})
	m.compact()
	m.checkpoint()
	before := m.db.Size()
	if err := m.defragmentBetween(128<<10, func() {}); err != nil {
		t.Fatal(err)
	}
	if after := m.db.Size(); after > 600<<10 || before < 6<<20 {
		t.Errorf("%d bytes became %d", before, after)
	}
	m.verify(t)
	path := m.db.Path()
	info, err := os.Stat(path)
	if err != nil || info.Size() < m.db.Size() || info.Size() > m.db.Size()+1<<20 {
		t.Errorf("the file of %d bytes has %d: %v", m.db.Size(), info.Size(), err)
	}
	m.checkpoint()
	if err := m.db.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(path)
	m.verify(t)
}

// TestDefragmentCanceled: a defragmentation that is canceled, or meets a replacement or the end, leaves no file behind.
func TestDefragmentCanceled(t *testing.T) {
	for name, end := range map[string]func(m *machine, d *Defragmentation) error{
		"cancel": func(_ *machine, d *Defragmentation) error { d.Cancel(); return nil },
		"close":  func(m *machine, _ *Defragmentation) error { return m.db.Close() },
		"replace": func(m *machine, _ *Defragmentation) error {
			b, err := os.ReadFile(m.db.Path())
			return errors.Join(err, os.WriteFile(m.db.Path()+".other", b, 0o600), m.db.Replace(m.db.Path()+".other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			for i := range 20 {
				m.put(i)
			}
			m.checkpoint()
			d, err := m.db.StartDefragment()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.db.StartDefragment(); err == nil {
				t.Error("two at a time")
			}
			if done, err := d.Step(1); done || err != nil {
				t.Fatalf("first step: done %t, %v", done, err)
			}
			if err := end(m, d); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(m.db.Path() + tempSuffix); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the copy: %v", err)
			}
			d.Cancel()
			if name != "close" {
				m.verify(t)
				if err := m.defragment(); err != nil {
					t.Error(err)
				}
				m.verify(t)
			}
		})
	}
}

// grow makes a file with free pages.
func (m *machine) grow() {
	for i := range 60 {
		m.put(i % 20)
		m.checkpoint()
	}
	m.compact()
	m.checkpoint()
}

// image is what a crash may leave.
type image struct {
	name     string
	db, temp []byte // nil: none
}

// start opens it, checks that it holds what m does, and answers the size of the file.
func (i image) start(t *testing.T, m *machine) int64 {
	left := &machine{t: t, state: m.state}
	name := filepath.Join(t.TempDir(), "db")
	for file, content := range map[string][]byte{name: i.db, name + tempSuffix: i.temp} {
		if content != nil {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	left.open(name)
	left.verify(t)
	if _, err := os.Stat(name + tempSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy: %v", err)
	}
	return left.db.Size()
}

// TestDefragmentCrashes: whatever operation on a file a crash comes before, the old file is there or the new one, complete. What was not
// synced is lost or not.
func TestDefragmentCrashes(t *testing.T) {
	m := newMachine(t)
	m.grow()
	path, temp := m.db.Path(), m.db.Path()+tempSuffix
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return b
	}
	var images []image
	var synced, old []byte // db.tmp at its last sync; db before the rename
	ops := make(map[vfs.OpKind]int)
	m.db.opts.FS = vfs.Hooked(vfs.OS, vfs.Hooks{
		Before: func(op vfs.Op) error {
			if !op.Kind.Changes() {
				return nil
			}
			ops[op.Kind]++
			name, db, copied := fmt.Sprintf("%s %d", op.Kind, ops[op.Kind]), read(path), read(temp)
			images = append(images, image{name, db, copied}, image{name + ", half of the copy", db, copied[:len(copied)/2]},
				image{name + ", no copy", db, nil}, image{name + ", copy of zeros", db, make([]byte, len(copied))})
			switch op.Kind {
			case vfs.OpRename:
				if !bytes.Equal(synced, copied) {
					t.Error("the copy was not synced before its rename")
				}
				old = db
			case vfs.OpSyncDir:
				images = append(images, image{name + ", rename lost", old, synced}, image{name + ", names lost", old, nil})
			}
			return nil
		},
		After: func(op vfs.Op, err error) {
			if op.Kind == vfs.OpSync && err == nil {
				synced = read(op.Path)
			}
		},
	})
	if err := m.defragmentBetween(16<<10, m.checkpoint); err != nil {
		t.Fatal(err)
	}
	images = append(images, image{"after the end", read(path), nil})
	if ops[vfs.OpSync] < 3 || ops[vfs.OpRename] != 1 || ops[vfs.OpSyncDir] != 1 || ops[vfs.OpRemove] != 1 {
		t.Errorf("operations: %v", ops)
	}
	files := make(map[int64]int)
	for _, i := range images {
		t.Run(i.name, func(t *testing.T) { files[i.start(t, m)]++ })
	}
	if len(files) < 2 {
		t.Errorf("sizes of what was found: %v", files)
	}
}

// TestDefragmentFails: whatever operation on a file fails, the defragmentation says so, nothing is lost, and the next one succeeds.
func TestDefragmentFails(t *testing.T) {
	failing := errors.New("failing")
	for n := 1; ; n++ {
		m := newMachine(t)
		m.grow()
		count, last := 0, false
		m.db.opts.FS = vfs.Hooked(vfs.OS, vfs.Hooks{Before: func(op vfs.Op) error {
			if op.Kind != vfs.OpClose { // of what is synced, or of no use
				count++
			}
			if op.Kind != vfs.OpClose && count == n {
				return failing
			}
			return nil
		}})
		err := m.defragmentBetween(16<<10, m.checkpoint)
		last = count < n
		m.db.opts.FS = vfs.OS
		if !last && !errors.Is(err, failing) || last && err != nil {
			t.Errorf("operation %d fails: %v", n, err)
		}
		if _, err := os.Stat(m.db.Path() + tempSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("operation %d fails: the copy: %v", n, err)
		}
		m.put(1)
		m.checkpoint()
		m.verify(t)
		if err := m.defragment(); err != nil {
			t.Errorf("after operation %d failed: %v", n, err)
		}
		path := m.db.Path()
		if err := m.db.Close(); err != nil {
			t.Fatal(err)
		}
		m.open(path)
		m.verify(t)
		if last {
			if n < 6 {
				t.Errorf("only %d operations", n-1)
			}
			return
		}
	}
}

// TestDefragmentWithoutRoom: a write to the copy that fails ends it, and the file is what it was.
func TestDefragmentWithoutRoom(t *testing.T) {
	m := newMachine(t)
	m.grow()
	var copied *os.File
	m.db.opts.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		copied = f
		return f, err
	}
	err := m.defragmentBetween(16<<10, func() {
		if copied != nil { // its pages are there
			copied.Close() // what is written from now on fails
		}
	})
	if !errors.Is(err, fs.ErrClosed) {
		t.Errorf("defragmentation: %v", err)
	}
	if _, err := os.Stat(m.db.Path() + tempSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy: %v", err)
	}
	m.put(1)
	m.checkpoint()
	m.verify(t)
	if err := m.defragment(); err != nil {
		t.Error(err)
	}
	m.verify(t)
}
