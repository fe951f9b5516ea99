package raftstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// checkpointing is a member whose log and database both can be looked at between any two operations of a checkpoint: the log's are vfs
// calls, and bbolt's are seen where it writes a page. What it syncs is known from its source: the file after it grew, its pages before the
// meta page that names them, and the meta page.
type checkpointing struct {
	*disks
	h       *harness
	l       *ledger
	s       *Store
	file    *bbolt.DB
	putting atomic.Bool                          // a client's write is under way, whose operations are not the checkpoint's
	puts    int                                  // of clients, since the checkpoint began
	write   func([]byte, int64) (n int, _ error) // bbolt's own
}

// bboltOf answers bbolt's handle, and reaches into it for the function that it writes pages with.
func bboltOf(t *testing.T, db *backend.DB) (file *bbolt.DB, write *func([]byte, int64) (int, error)) {
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	file = tx.DB()
	field := reflect.ValueOf(file).Elem().FieldByName("ops").FieldByName("writeAt")
	return file, (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
}

// beginCheckpointing makes a member with a checkpoint behind it, and one before it that has all there is: rows of several revisions and
// of one, tombstones, leases that came, changed and went, rows that a compaction made dead, of which some are in the database and some
// in the log alone, and a log of several segments.
func beginCheckpointing(t *testing.T) *checkpointing {
	h, l := newHarness(t), newLedger()
	h.adjust = func(c *Config) {
		l.watch(c)
		c.WALSegmentBytes, c.Checkpoints.DeadRows, c.Checkpoints.PartBytes = 32<<10, 60, 4<<10
		c.freelistBytes = 1 // parts leave it out
	}
	s := h.open()
	file, _ := bboltOf(t, s.checkpoint.db)
	file.AllocSize = 1 // it grows by what it needs, and an image is small
	c := &checkpointing{h: h, l: l, s: s}
	for id := range int64(4) {
		grant(t, s, id+1, 1000)
	}
	for i := range 150 {
		c.put(i%25, i, int64(i%5))
	}
	c.propose(mvcc.KindDeleteRange, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("k24")}})
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	c.disks = newDisks(t, h)
	c.attach(h)
	c.s = h.open()
	for i := range 100 {
		c.put(i%30, 200+i, int64(i%3))
	}
	grant(t, c.s, 9, 500)
	c.propose(mvcc.KindLeaseRevoke, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 2}})
	c.propose(mvcc.KindDeleteRange, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("k1"), RangeEnd: []byte("k12")}})
	rev := c.s.View().Revision()
	c.propose(mvcc.KindCompaction, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(rev)}})
	awaitEvent(h, CompactionDone{Revision: rev})
	var txn []*pb.RequestOp
	for i := range 3 {
		txn = append(txn, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "t%d", i), Value: []byte("x"), Lease: 9}}})
	}
	c.propose(mvcc.KindTxn, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: txn}})
	return c
}

func (c *checkpointing) propose(kind mvcc.Kind, r *pb.InternalRaftRequest) {
	c.h.t.Helper()
	if _, err := c.s.Propose(context.Background(), Command{Kind: kind, Request: r}); err != nil {
		c.h.t.Fatalf("%v: %v", r, err)
	}
}

func (c *checkpointing) put(key, n int, lease int64) {
	c.h.t.Helper()
	if _, err := tryPut(c.s, fmt.Sprintf("k%d", key), fmt.Sprintf("v%d %s", n, noise(400)), lease); err != nil {
		c.h.t.Fatal(err)
	}
}

// hookPages has bbolt's operations seen, with a write of a client's before each page.
func (c *checkpointing) hookPages(t *testing.T) {
	file, write := bboltOf(t, c.s.checkpoint.db)
	file.AllocSize = 1
	if file.NoSync || file.NoGrowSync {
		t.Fatal("bbolt does not sync")
	}
	c.file, c.write = file, *write
	*write = c.page
}

// page is a write of bbolt's. What comes before it is looked at twice: without what the crash can lose of it, and with it.
func (c *checkpointing) page(b []byte, at int64) (n int, err error) {
	c.putting.Store(true)
	_, err = tryPut(c.s, "k40", fmt.Sprintf("v%d", c.puts), 0)
	c.puts++
	c.putting.Store(false)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.grown(); err != nil {
		return 0, err
	}
	meta := at < 2*int64(c.file.Info().PageSize)
	if meta {
		if err := c.do(vfs.Op{Kind: vfs.OpSync, Path: c.h.db}); err != nil {
			return 0, err
		}
	}
	op := vfs.Op{Kind: vfs.OpWrite, Path: c.h.db, Offset: at, Bytes: int64(len(b))}
	if c.before != nil {
		if err := c.before(op); err != nil {
			return 0, err
		}
	}
	n, err = c.write(b, at)
	c.must(err)
	c.mirror(op)
	if meta {
		err = c.do(vfs.Op{Kind: vfs.OpSync, Path: c.h.db})
	}
	return n, err
}

// grown does what bbolt has done to the real file already.
func (c *checkpointing) grown() error {
	real, err := os.Stat(c.h.db)
	c.must(err)
	twin, err := c.db.Stat(c.h.db)
	c.must(err)
	if real.Size() <= twin.Size {
		return nil
	}
	if err := c.do(vfs.Op{Kind: vfs.OpTruncate, Path: c.h.db, Bytes: real.Size()}); err != nil {
		return err
	}
	return c.do(vfs.Op{Kind: vfs.OpSync, Path: c.h.db})
}

// do does to the twin what bbolt has just done, or is about to do, to the real file.
func (c *checkpointing) do(op vfs.Op) error {
	if c.before != nil {
		if err := c.before(op); err != nil {
			return err
		}
	}
	if op.Kind == vfs.OpTruncate {
		f, err := c.db.Open(op.Path)
		c.must(err)
		c.must(errors.Join(f.Truncate(op.Bytes), f.Close()))
		return nil
	}
	c.mirror(op)
	return nil
}

// finish waits until a checkpoint and all parts of the removal behind it are written.
func (c *checkpointing) finish() error {
	if err := c.s.Checkpoint(context.Background()); err != nil {
		return err
	}
	return c.s.CompactWait(context.Background(), c.s.View().Compacted())
}

// fingerprint is everything that a view answers from.
func fingerprint(t testing.TB, v *mvcc.View) string {
	t.Helper()
	hash, compacted, revision, err := v.HashKV(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d, compacted %d, hash of the rows %x, %d keys, size %d, alarms %v", revision, compacted, hash, v.KeyCount(), v.Size(), v.Alarms())
	for _, l := range v.Leases() {
		fmt.Fprintf(&b, ", lease %v of %q", l, v.LeaseKeys(l.ID))
	}
	return b.String()
}

// TestCheckpointCrashes: whatever operation on a file a crash comes before, while a checkpoint and the removal of dead rows behind it are
// written and the log gives back its segments, the member starts with exactly what was acknowledged.
func TestCheckpointCrashes(t *testing.T) {
	c := beginCheckpointing(t)
	type left struct {
		*harness
		op   string
		want string
	}
	var images []left
	seen := make(map[string]int)
	c.set(func(op vfs.Op) error {
		if c.putting.Load() {
			return nil
		}
		kind := "log " + string(op.Kind)
		if op.Path == c.h.db {
			kind = "db " + string(op.Kind)
		}
		seen[kind]++
		for _, keep := range []func(vfs.Unsynced) bool{vfs.LoseAll, vfs.KeepAll, vfs.Seeded(uint64(len(images)))} {
			images = append(images, left{c.crash(t, c.h, keep), op.String(), fingerprint(t, c.s.View())})
		}
		return nil
	})
	c.hookPages(t)
	if err := c.finish(); err != nil {
		t.Fatal(err)
	}
	c.set(nil)
	t.Logf("%d images: %v", len(images), seen)
	for _, kind := range []string{"db write", "db truncate", "db sync", "log write", "log sync", "log rename", "log syncdir"} {
		if seen[kind] == 0 {
			t.Errorf("no %s among the operations of a checkpoint: %v", kind, seen)
		}
	}
	if err := c.s.halt(); err != nil {
		t.Fatal(err)
	}
	starts := make(map[uint64]int) // by the checkpoint's index
	ahead := 0                     // images with rows ahead of it
	for i, image := range images {
		if rowsAhead(t, image.harness) {
			ahead++
		}
		name := fmt.Sprintf("image %d, before %s", i, strings.ReplaceAll(image.op, filepath.Dir(c.h.db), ""))
		starts[startCrashed(t, name, image.harness, c.l, image.want)]++
		if t.Failed() {
			return
		}
	}
	if len(starts) < 2 || ahead == 0 {
		t.Errorf("started from checkpoints %v, %d with rows ahead of them", starts, ahead)
	}
}

// rowsAhead tells whether the database has rows of a checkpoint that did not come to its end.
func rowsAhead(t *testing.T, h *harness) bool {
	t.Helper()
	db, err := backend.Open(h.db, backend.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ahead, err := db.Ahead()
	if err != nil {
		t.Fatal(err)
	}
	return ahead
}

// startCrashed starts a member from what a crash left, compares it with what was acknowledged, and lets it go on to a checkpoint of its
// own. It answers the index of the checkpoint that it started from.
func startCrashed(t *testing.T, name string, h *harness, l *ledger, want string) (checkpoint uint64) {
	t.Helper()
	adjust := h.adjust
	h.adjust = func(c *Config) { adjust(c); c.OnApply = nil } // what follows is not of the ledger's history
	s, err := Open(h.config())
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	v, err := s.ReadView(context.Background())
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if got := fingerprint(t, v); got != want {
		t.Errorf("%s:\n%s\nwas acknowledged, and there is\n%s", name, want, got)
	}
	h.mu.Lock()
	opened := h.structs[0].(Opened)
	h.mu.Unlock()
	l.mu.Lock()
	if hash, ok := l.hashes[opened.Index]; ok && hash != opened.Hash {
		t.Errorf("%s: the state at index %d has hash %x, it was %x", name, opened.Index, opened.Hash, hash)
	}
	l.mu.Unlock()
	put(t, s, "behind", "the crash")
	want = fingerprint(t, s.View())
	if err := errors.Join(s.Checkpoint(context.Background()), s.CompactWait(context.Background(), s.View().Compacted()), s.halt()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if err := check(h.fs, Dirs{Data: h.dir}, h.db, func(f Finding) { t.Errorf("%s: %v", name, f) }); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if s, err = Open(h.config()); err != nil {
		t.Errorf("%s, and a checkpoint: %v", name, err)
		return opened.Checkpoint
	}
	if got := fingerprint(t, s.View()); got != want {
		t.Errorf("%s, and a checkpoint:\n%s\nis\n%s", name, want, got)
	}
	if err := s.halt(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return opened.Checkpoint
}

// TestUnsyncedMeta: the sync of a meta page fails, so the page cache shows a transaction that the disk may not have. The store fails, and
// whatever operation of the next start, or of its first checkpoint, the machine fails before, what the disk has is whole.
func TestUnsyncedMeta(t *testing.T) {
	c := beginCheckpointing(t)
	metas := int64(0)
	isMeta := func(at int64) bool { return at < metas }
	wrote, armed := false, true
	c.set(func(op vfs.Op) error {
		switch {
		case op.Path != c.h.db || !armed:
		case op.Kind == vfs.OpWrite:
			wrote = isMeta(op.Offset)
		case op.Kind == vfs.OpSync && wrote:
			armed = false
			c.db.ForgetDirty(op.Path)
			return syscall.EIO
		}
		return nil
	})
	c.hookPages(t)
	metas = 2 * int64(c.file.Info().PageSize)
	if err := c.finish(); !errors.Is(err, backend.ErrUnsynced) {
		t.Fatalf("a checkpoint whose last sync failed: %v", err)
	}
	<-c.s.Failed()
	if err := c.s.Checkpoint(context.Background()); !errors.Is(err, backend.ErrUnsynced) {
		t.Errorf("another one: %v", err)
	}
	c.set(nil)
	_ = c.s.halt()
	type left struct {
		*harness
		op, want string
	}
	var images []left
	written := func(u vfs.Unsynced) bool { return u.Path != c.h.db || u.Name || u.Resize || !isMeta(u.Offset) }
	c.set(func(op vfs.Op) error {
		if c.putting.Load() {
			return nil
		}
		want := ""
		if c.s != nil {
			want = fingerprint(t, c.s.View())
		}
		images = append(images, left{c.crash(t, c.h, written), op.String(), want})
		return nil
	})
	want := fingerprint(t, c.s.View())
	c.s = nil
	c.s = c.h.open()
	c.hookPages(t)
	if err := c.finish(); err != nil {
		t.Fatal(err)
	}
	c.set(nil)
	if err := c.s.halt(); err != nil {
		t.Fatal(err)
	}
	starts := make(map[uint64]int) // by the checkpoint's index
	for i, image := range images {
		if image.want == "" {
			image.want = want
		}
		starts[startCrashed(t, fmt.Sprintf("image %d, before %s", i, filepath.Base(image.op)), image.harness, c.l, image.want)]++
		if t.Failed() {
			return
		}
	}
	if len(starts) < 2 {
		t.Errorf("started from checkpoints %v", starts)
	}
}

// TestCheckpointFailures: whatever operation on the database fails, the member goes on, or fails if nobody knows what is on the disk; its
// next checkpoint covers what this one did not write, and a start in between finds everything.
func TestCheckpointFailures(t *testing.T) {
	for n := 0; ; n++ {
		var failed string
		t.Run(fmt.Sprintf("operation %d", n+1), func(t *testing.T) { failed = failCheckpoint(t, n) })
		if failed == "" {
			if n < 10 {
				t.Errorf("a checkpoint has %d operations", n)
			}
			return
		}
	}
}

// failCheckpoint lets the nth operation on the database fail, once, and says which one it was.
func failCheckpoint(t *testing.T, n int) (failed string) {
	c := beginCheckpointing(t)
	count := 0
	c.set(func(op vfs.Op) error {
		if op.Path != c.h.db || failed != "" {
			return nil
		}
		if count++; count == n+1 {
			failed = op.String()
			return syscall.EIO
		}
		return nil
	})
	c.hookPages(t)
	err := c.finish()
	c.set(nil)
	if (err != nil) != (failed != "") {
		t.Fatalf("after a failed %q: %v", failed, err)
	}
	if failed == "" {
		if err := c.s.halt(); err != nil {
			t.Error(err)
		}
		return ""
	}
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("%s failed, and the checkpoint with %v", failed, err)
	}
	c.mu.Lock()
	image, want := c.crash(t, c.h, vfs.LoseAll), fingerprint(t, c.s.View())
	c.mu.Unlock()
	startCrashed(t, "after "+failed, image, c.l, want)
	if c.s.Err() != nil {
		if !errors.Is(c.s.Err(), backend.ErrUnsynced) {
			t.Fatalf("after %s the store failed with %v", failed, c.s.Err())
		}
		_ = c.s.halt()
		c.s = c.h.open()
	}
	if err := c.finish(); err != nil {
		t.Errorf("after %s: %v", failed, err)
	}
	want = fingerprint(t, c.s.View())
	if err := c.s.halt(); err != nil {
		t.Error(err)
	}
	s := c.h.open()
	defer closeStore(t, s)
	if got := fingerprint(t, s.View()); got != want {
		t.Errorf("after %s:\n%s\nis\n%s", failed, want, got)
	}
	return failed
}
