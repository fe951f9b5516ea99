package backend

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestCopy: a copy is the file as of its beginning, with direct reads and without; what is written meanwhile is not in it.
func TestCopy(t *testing.T) {
	for _, direct := range []bool{true, false} {
		m := &machine{t: t, state: newMachine(t).state}
		opens := 0
		db, err := Open(filepath.Join(t.TempDir(), "db"), Options{MapBytes: 1 << 24, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			if vfs.DirectFlag != 0 && flag&vfs.DirectFlag != 0 {
				opens++
				if !direct {
					return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EINVAL}
				}
			}
			return os.OpenFile(name, flag, mode)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		m.db = db
		grow := func() {
			for i := range 300 {
				m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte{byte(i)}, Value: bytes.Repeat([]byte{byte(i)}, 3000)}})
			}
			m.checkpoint()
		}
		grow()
		if err := m.defragment(); err != nil { // bbolt knows the file by the name that it had before
			t.Fatal(err)
		}
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		var want, have bytes.Buffer
		if _, err := tx.WriteTo(&want); err != nil {
			t.Fatal(err)
		}
		paced := 0
		n, err := tx.Copy(&have, func(bytes int, _ time.Duration) error {
			paced += bytes
			grow()
			return nil
		})
		if err != nil || n != int64(want.Len()) || paced != want.Len()-2*db.pageSize() || statusOf(t, &have) != statusOf(t, &want) {
			t.Errorf("direct %v: %d bytes, %d of them paced, of %d, %v", direct, n, paced, want.Len(), err)
		}
		if vfs.DirectFlag != 0 && opens != 1 {
			t.Errorf("direct %v: the file was opened %d times for direct reads", direct, opens)
		}
		if err := m.defragment(); err != nil {
			t.Fatal(err)
		}
		have.Reset()
		n, err = tx.Copy(&have, func(int, time.Duration) error { return nil })
		if err != nil || statusOf(t, &have) != statusOf(t, &want) {
			t.Errorf("direct %v: of a file that was replaced since: %d bytes of %d, %v", direct, n, want.Len(), err)
		}
		stop := errors.New("stop")
		if _, err := tx.Copy(&have, func(int, time.Duration) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("direct %v: %v", direct, err)
		}
		tx.Rollback()
	}
}

// statusOf is what a copy holds. Pages that are free in it may hold anything.
func statusOf(t *testing.T, copied *bytes.Buffer) Status {
	t.Helper()
	name := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(name, copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(name, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.Status()
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return s
}
