package raftstore

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// disks is the log of one member, in memory, and the directory of its database, which is real and has a twin in memory that knows what of
// it is durable. Nothing is done to either while the other is changed, so that both can be looked at between any two operations.
type disks struct {
	t       testing.TB
	mu      sync.Mutex
	log, db *vfs.Mem
	dir     string // of the database
	// before is called before each operation that changes something, with mu held; its error fails the operation. nil: not called.
	before func(op vfs.Op) error
}

// newDisks takes the files of a member that does not run.
func newDisks(t testing.TB, h *harness) *disks {
	t.Helper()
	d := &disks{t: t, log: h.fs.(*vfs.Mem), db: vfs.NewMem(), dir: filepath.Dir(h.db)}
	d.must(d.db.MkdirAll(d.dir))
	files, err := filepath.Glob(h.db + "*")
	d.must(err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		d.must(err)
		f, err := d.db.Create(file)
		d.must(err)
		_, err = f.WriteAt(b, 0)
		d.must(errors.Join(err, f.Sync(), f.Close()))
	}
	d.must(d.db.SyncDir(d.dir))
	return d
}

func (d *disks) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// attach lets a member use the disks.
func (d *disks) attach(h *harness) {
	h.fs = vfs.Hooked(d.log, d.hooks(func(vfs.Op) {}))
	adjust := h.adjust
	h.adjust = func(c *Config) {
		adjust(c)
		c.dbFS = vfs.Hooked(vfs.OS, d.hooks(d.mirror))
	}
}

// set is for before.
func (d *disks) set(before func(vfs.Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

func (d *disks) hooks(done func(vfs.Op)) vfs.Hooks {
	return vfs.Hooks{
		Before: func(op vfs.Op) error {
			d.mu.Lock()
			if d.before == nil || !op.Kind.Changes() {
				return nil
			}
			return d.before(op)
		},
		After: func(op vfs.Op, err error) {
			if err == nil {
				done(op)
			}
			d.mu.Unlock()
		},
	}
}

// mirror does to the twin what was done to the real directory.
func (d *disks) mirror(op vfs.Op) {
	switch op.Kind {
	case vfs.OpCreate:
		f, err := d.db.Create(op.Path)
		d.must(err)
		f.Close()
	case vfs.OpWrite:
		b := make([]byte, op.Bytes)
		real, err := vfs.OS.OpenReadOnly(op.Path)
		d.must(err)
		_, err = real.ReadAt(b, op.Offset)
		d.must(errors.Join(err, real.Close()))
		f, err := d.db.Open(op.Path)
		d.must(err)
		_, err = f.WriteAt(b, op.Offset)
		d.must(err)
	case vfs.OpSync:
		f, err := d.db.Open(op.Path)
		d.must(err)
		d.must(f.Sync())
	case vfs.OpRename:
		d.must(d.db.Rename(op.Path, op.NewPath))
	case vfs.OpRemove:
		d.must(d.db.Remove(op.Path))
	case vfs.OpSyncDir:
		d.must(d.db.SyncDir(op.Path))
	}
}

// crash is a member that finds what a crash now would leave. The caller holds mu.
func (d *disks) crash(t *testing.T, h *harness, keep func(vfs.Unsynced) bool) *harness {
	image := newHarness(t)
	image.adjust = func(cfg *Config) {
		h.adjust(cfg)
		cfg.Connect, cfg.dbFS = newNetwork(t).connect, nil
	}
	image.fs = d.log.Crash(keep)
	left := d.db.Crash(keep)
	names, err := left.List(d.dir)
	d.must(err)
	for _, name := range names {
		f, err := left.Open(path.Join(d.dir, name))
		d.must(err)
		size, err := f.Size()
		d.must(err)
		b := make([]byte, size)
		if size > 0 {
			_, err = f.ReadAt(b, 0)
			d.must(err)
		}
		d.must(os.WriteFile(filepath.Join(filepath.Dir(image.db), name), b, 0o600))
	}
	return image
}

// TestInstallCrashes: whatever operation on a file a crash comes before, during an install or while a start finishes one, the member
// starts with the old or the new state.
func TestInstallCrashes(t *testing.T) { synctest.Test(t, testInstallCrashes) }

func testInstallCrashes(t *testing.T) {
	c := newCluster(t, 3, fewEntries)
	i := fallBehind(t, c)
	h := c.members[i]
	d := newDisks(t, h)
	d.attach(h)
	var images []*harness
	seen := make(map[vfs.OpKind]int)
	armed := false
	d.set(func(op vfs.Op) error {
		inDB := strings.HasPrefix(op.Path, d.dir)
		if armed = (armed || inDB && op.Kind == vfs.OpCreate) && !h.saw("installed a snapshot"); !armed {
			return nil
		}
		if inDB {
			seen[op.Kind]++
		}
		for _, keep := range []func(vfs.Unsynced) bool{vfs.LoseAll, vfs.KeepAll, vfs.Seeded(uint64(len(images)))} {
			images = append(images, d.crash(t, h, keep))
		}
		return nil
	})
	c.start(i)
	await(t, "a snapshot", func() bool { return h.saw("installed a snapshot") })
	d.set(nil)
	if seen[vfs.OpCreate] != 1 || seen[vfs.OpWrite] < 2 || seen[vfs.OpSync] != 1 || seen[vfs.OpRename] != 2 || seen[vfs.OpSyncDir] != 2 {
		t.Errorf("operations on files beside the database: %v", seen)
	}
	starts := make(map[string]int)
	for n, image := range images {
		starts[startImage(t, fmt.Sprintf("image %d", n), image, true)]++
	}
	if starts["old"] == 0 || starts["new"] == 0 {
		t.Errorf("of %d images: %v", len(images), starts)
	}
	c.converge()
}

// startImage starts a member from what a crash left, says whether it has the old or the new state, and looks at what a second crash
// during that start would leave, if again is set.
func startImage(t *testing.T, name string, image *harness, again bool) (state string) {
	t.Helper()
	var inner []*harness
	if again {
		d := newDisks(t, image)
		adjust := image.adjust
		d.before = func(op vfs.Op) error {
			for _, keep := range []func(vfs.Unsynced) bool{vfs.LoseAll, vfs.KeepAll} {
				inner = append(inner, d.crash(t, image, keep))
			}
			return nil
		}
		image.adjust = func(c *Config) {
			adjust(c)
			c.dbFS = vfs.Hooked(vfs.OS, d.hooks(d.mirror))
		}
	}
	s, err := Open(image.config())
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return "none"
	}
	switch rev := s.View().Revision(); {
	case rev == 21:
		state = "old"
	case rev >= 121:
		state = "new"
	default:
		t.Errorf("%s starts at revision %d", name, rev)
	}
	if err := s.halt(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(image.db + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%s keeps %q, %v", name, left, err)
	}
	if err := check(image.fs, Dirs{Data: image.dir}, image.db, func(f Finding) { t.Errorf("%s: %v", name, f) }); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for n, in := range inner {
		name := fmt.Sprintf("%s, then %d", name, n)
		if got := startImage(t, name, in, false); got != state {
			t.Errorf("%s: the %s state is followed by the %s one", name, state, got)
		}
	}
	return state
}

// TestInstallFailures: whatever operation on a file fails, the member gets the snapshot later, or ends and gets it with its next start.
func TestInstallFailures(t *testing.T) {
	for n := 0; ; n++ {
		var failed string
		runTimeless(t, fmt.Sprintf("operation %d", n+1), func(t *testing.T) { failed = failInstall(t, n) })
		if failed == "" {
			if n < 7 {
				t.Errorf("an install has %d operations", n)
			}
			return
		}
	}
}

// failInstall lets the nth operation beside the database fail, once, and says which one it was.
func failInstall(t *testing.T, n int) (failed string) {
	c := newCluster(t, 3, fewEntries)
	i := fallBehind(t, c)
	h := c.members[i]
	d := newDisks(t, h)
	d.attach(h)
	armed, count := false, 0
	d.set(func(op vfs.Op) error {
		inDB := strings.HasPrefix(op.Path, d.dir)
		armed = armed || inDB && op.Kind == vfs.OpCreate
		if !armed || !inDB || h.saw("installed a snapshot") {
			return nil
		}
		count++
		if count == n+1 {
			failed = op.String()
			return syscall.EIO
		}
		return nil
	})
	s := c.start(i)
	await(t, "a snapshot, or the end", func() bool { return h.saw("installed a snapshot") || s.Err() != nil })
	d.set(nil)
	t.Logf("%s failed: %v", failed, s.Err())
	if renamed := strings.HasSuffix(failed, h.db); renamed && s.Err() == nil {
		t.Error("the store goes on beside a database that is not the log's")
	}
	if s.Err() != nil {
		c.stores[i] = nil
		if err := s.halt(); err != nil {
			t.Error(err)
		}
		c.start(i)
	}
	c.converge()
	if left, err := filepath.Glob(h.db + ".*"); err != nil || len(left) > 0 {
		t.Errorf("after %s failed: %q are left, %v", failed, left, err)
	}
	return failed
}

// TestInstallOfAnUnsyncedRecord: the process was killed between the record of an install and its fsync. The next start finds the record
// in the page cache, and makes it durable before it acts upon it.
func TestInstallOfAnUnsyncedRecord(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	put(t, s, "k", "v")
	id, hard, at := s.id, s.log.written, s.View().Index()+10
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	mem, dir := h.fs.(*vfs.Mem), Dirs{Data: h.dir}.wal()
	w, err := wal.Open(mem, dir, wal.Options{SegmentBytes: h.config().WALSegmentBytes, ReserveInline: true,
		Header: func() []wal.Record { return []wal.Record{id.record()} }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(installRecord(mark{index: at, term: 2}), hardStateRecord(hard)); err != nil {
		t.Fatal(err)
	}
	installed := func(fs vfs.FS) uint64 {
		r := newReplay(mark{})
		if err := wal.Scan(fs, dir, r.record); err != nil {
			t.Fatal(err)
		}
		return r.installed
	}
	if now, left := installed(mem), installed(mem.Crash(vfs.LoseAll)); now != at || left != 0 {
		t.Fatalf("the record of %d is %d now, and %d behind a crash", at, now, left)
	}
	if err := os.WriteFile(installPath(h.db, at), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	renamed := false
	h.adjust = func(c *Config) {
		c.dbFS = vfs.Hooked(vfs.OS, vfs.Hooks{Before: func(op vfs.Op) error {
			if op.Kind == vfs.OpRename {
				renamed = true
				if left := installed(mem.Crash(vfs.LoseAll)); left != at {
					t.Errorf("the file is renamed, and a crash leaves a log with an install at %d", left)
				}
				return syscall.EIO
			}
			return nil
		}})
	}
	if _, err := Open(h.config()); !errors.Is(err, syscall.EIO) || !renamed {
		t.Errorf("renamed: %v, %v", renamed, err)
	}
}
