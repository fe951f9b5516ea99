package backend

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// TestReadersKeepTheirFile: a reader of the file that was replaced holds up neither those that begin later nor the end of others, and
// reads what it read before.
func TestReadersKeepTheirFile(t *testing.T) {
	m := newMachine(t)
	m.put(0)
	m.checkpoint()
	slow, err := m.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	quick, err := m.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.defragment(); err != nil {
		t.Fatal(err)
	}
	m.put(1)
	m.checkpoint()
	if err := quick.Rollback(); err != nil {
		t.Errorf("end of a reader of the old file: %v", err)
	}
	next, err := m.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if got := next.Bucket(bucketKey).Stats().KeyN; got != 2 {
		t.Errorf("the new file has %d rows, want 2", got)
	}
	if got := slow.Bucket(bucketKey).Stats().KeyN; got != 1 {
		t.Errorf("the reader of the old file sees %d rows, want 1", got)
	}
	if err := errors.Join(next.Rollback(), slow.Rollback()); err != nil {
		t.Error(err)
	}
	if err := slow.Rollback(); !errors.Is(err, berrors.ErrTxClosed) {
		t.Errorf("second end of a reader: %v", err)
	}
	if err := m.db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.db.Begin(); !errors.Is(err, berrors.ErrDatabaseNotOpen) {
		t.Errorf("reader of a closed file: %v", err)
	}
}

// TestReadersBesideReplacements: readers come and go while the file is replaced again and again.
func TestReadersBesideReplacements(t *testing.T) {
	m := newMachine(t)
	m.put(0)
	m.checkpoint()
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				tx, err := m.db.Begin()
				if err != nil {
					t.Errorf("begin: %v", err)
					return
				}
				if tx.Bucket(bucketKey).Stats().KeyN == 0 {
					t.Error("no rows")
				}
				if err := tx.Rollback(); err != nil {
					t.Errorf("rollback: %v", err)
				}
			}
		})
	}
	for i := range 50 {
		m.put(i + 1)
		m.checkpoint()
		if err := m.defragment(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

// TestNameNotDurable: while the directory cannot be synced after a replacement, nothing is written to the new file, since a crash may
// leave the old one; then writing goes on.
func TestNameNotDurable(t *testing.T) {
	failing := errors.New("failing")
	fails := false
	files := vfs.Hooked(vfs.OS, vfs.Hooks{Before: func(op vfs.Op) error {
		if fails && op.Kind == vfs.OpSyncDir {
			return failing
		}
		return nil
	}})
	m := newMachine(t)
	m.db.opts.FS = files
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		m.step(rng)
	}
	m.checkpoint()
	fails = true
	if err := m.defragment(); !errors.Is(err, failing) {
		t.Errorf("defragment: %v", err)
	}
	if _, err := m.db.Write(Batch{Index: 1000, Members: map[string][]byte{}}); !errors.Is(err, failing) {
		t.Errorf("write: %v", err)
	}
	fails = false
	m.step(rng)
	m.checkpoint()
	path := filepath.Clean(m.db.Path())
	if err := m.db.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(path)
	got, err := load(m.db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), m.state.Publish())
}
