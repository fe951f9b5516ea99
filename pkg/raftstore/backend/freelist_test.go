package backend

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// listed tells whether the list of free pages is in a file.
func listed(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	w := &pageWalker{file: f}
	if !w.meta(info.Size()) {
		t.Fatal(w.reason)
	}
	return w.freelist != noFreelist
}

// TestFreelistLeftOut: parts leave a list of free pages out that is too long; the last one writes it, or Close. A file without it is opened
// as one after a crash is, with the same state, and its free pages are used again.
func TestFreelistLeftOut(t *testing.T) {
	const rows, rowBytes = 500, 7000
	m := newMachine(t)
	for range rows {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, rowBytes)}})
	}
	m.checkpoint()
	m.compact()
	want, part := m.state.Publish(), func() {
		m.deadMax = 100
		m.checkpoint()
		if len(m.left) == 0 {
			t.Fatal("it was not a part")
		}
	}
	if !listed(t, m.db.Path()) {
		t.Error("a checkpoint has left the list out")
	}
	m.db.opts.FreelistBytes = 1 << 20
	part()
	if !listed(t, m.db.Path()) {
		t.Error("a part has left a short list out")
	}
	m.db.opts.FreelistBytes = 1
	free := int64(freelistDiskMin - 1)
	m.db.opts.DiskFree = func(string) int64 { return free }
	part()
	if !listed(t, m.db.Path()) {
		t.Error("a part has left a list out on a disk that is about to be full: a transaction that finds no room looks at all pages then")
	}
	free++
	part()
	if listed(t, m.db.Path()) {
		t.Error("a part has written a long list")
	}
	for _, readOnly := range []bool{true, false} {
		openWithoutList(m, readOnly, want)
	}
	path := m.db.Path()
	if err := m.db.Close(); err != nil {
		t.Fatal(err)
	}
	if !listed(t, path) {
		t.Error("Close has left the list out")
	}
	m.open(filepath.Clean(path))
	got, err := load(m.db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), want)
	part()
	m.deadMax = 0
	m.checkpoint()
	if !listed(t, path) {
		t.Error("the last part has left the list out")
	}
	c, err := m.db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) })
	if err != nil || c.Rows != 1 {
		t.Errorf("%d rows, %v", c.Rows, err)
	}
}

// openWithoutList opens a copy of a file without the list.
func openWithoutList(m *machine, readOnly bool, want *mvcc.View) {
	t := m.t.(*testing.T)
	t.Helper()
	db := m.copyOf(readOnly)
	if listed(t, db.Path()) {
		t.Error("Open has written a list, for which a full disk may have no room")
	}
	got, err := load(db)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got.Publish(), want)
	if _, err := db.Check(func(at int64, reason string) { t.Errorf("offset %d: %s", at, reason) }); err != nil {
		t.Error(err)
	}
	if free, had := db.Size()-db.SizeInUse(), m.db.Size()-m.db.SizeInUse(); !readOnly && free < had*9/10 {
		t.Errorf("%d bytes of it are free, want about %d", free, had)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if listed(t, db.Path()) == readOnly {
		t.Errorf("behind Close the list is there: %t, opened to read only: %t", !readOnly, readOnly)
	}
}

// TestDamageWithoutFreelist: where the list is missing, bbolt looks at all pages on a goroutine of its own, and a panic there would end the
// process. Open finds a damaged leaf before.
func TestDamageWithoutFreelist(t *testing.T) {
	m := newMachine(t)
	for i := range 100 {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, 7000)}})
	}
	m.checkpoint()
	if err := m.db.PutAhead(nil); err != nil {
		t.Fatal(err)
	}
	if listed(t, m.db.Path()) {
		t.Fatal("the list is there")
	}
	tx, err := m.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := tx.Bucket(bucketKey).Cursor().First()
	leaf := offset(tx.DB(), first) / pageBytes * pageBytes
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(m.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	content[leaf] ^= 1 // its ID
	name := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(name, Options{MapBytes: 1 << 24})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("%v", err)
	}
	if err == nil {
		db.Close()
	}
}
