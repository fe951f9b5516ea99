package raftstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// snapshotOf is a snapshot of a store that was filled, with its checksum behind it, and the view that it is of.
func snapshotOf(t *testing.T) (name string, v *mvcc.View) {
	t.Helper()
	s := newHarness(t).open()
	defer closeStore(t, s)
	fill(t, s)
	if err := s.CompactWait(t.Context(), 150); err != nil {
		t.Fatal(err)
	}
	name = backupFile(t, s)
	appendChecksum(t, name)
	return name, s.View()
}

func appendChecksum(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if err := os.WriteFile(name, append(b, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// restoreConfig restores into a data dir that is not there yet.
func restoreConfig(t *testing.T, snapshot string) RestoreConfig {
	return RestoreConfig{Snapshot: snapshot, DataDir: filepath.Join(t.TempDir(), "data"), WALSegmentBytes: 1 << 20, BumpRevision: 1_000_000_000}
}

// restored is the member of a data dir that a restore has made.
func restored(t *testing.T, cfg RestoreConfig) *harness {
	h := newHarness(t)
	h.fs, h.dir, h.db = vfs.OS, cfg.DataDir, Dirs{Data: cfg.DataDir}.db()
	return h
}

func mustRestore(t *testing.T, cfg RestoreConfig) Restored {
	t.Helper()
	out, err := Restore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(vfs.OS, Dirs{Data: cfg.DataDir}, func(f Finding) { t.Errorf("restored: %v", f) }); err != nil {
		t.Error(err)
	}
	return out
}

// rowsAt is all that a range over everything answers, and the leases with the keys that hang on them.
func rowsAt(t *testing.T, v *mvcc.View, at int64) string {
	t.Helper()
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: at})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, x := range res.Versions {
		fmt.Fprintf(&b, "%q create %d mod %d version %d lease %d %q\n", x.Key(), x.Create(), x.Mod(), x.Num(), x.Lease(), x.Value())
	}
	for _, l := range v.Leases() {
		fmt.Fprintf(&b, "lease %d ttl %d keys %q\n", l.ID, l.TTL, v.LeaseKeys(l.ID))
	}
	return b.String()
}

func TestRestore(t *testing.T) {
	snapshot, before := snapshotOf(t)
	for _, bump := range []uint64{1_000_000_000, 0} {
		cfg := restoreConfig(t, snapshot)
		cfg.BumpRevision = bump
		out := mustRestore(t, cfg)
		h := restored(t, cfg)
		s := h.open()
		v := s.View()
		if want := before.Revision() + mvcc.Revision(bump); v.Revision() != want || out.Revision != want || out.SnapshotRevision != before.Revision() {
			t.Errorf("bump %d: revision %d, restore said %+v, want %d", bump, v.Revision(), out, want)
		}
		if have, want := rowsAt(t, v, 0), rowsAt(t, before, 0); have != want {
			t.Errorf("bump %d: the snapshot has\n%s\nthe restored member\n%s", bump, want, have)
		}
		watched := v.History(before.Revision(), v.Revision()+1, func(mvcc.Event) bool { return true })
		if bump > 0 && (!errors.Is(watched, mvcc.ErrCompacted) || v.Compacted() != v.Revision()) {
			t.Errorf("the history behind the snapshot can be read: %v, compacted %d of %d", watched, v.Compacted(), v.Revision())
		}
		if bump == 0 && (watched != nil || v.Compacted() != before.Compacted() || rowsAt(t, v, 200) != rowsAt(t, before, 200)) {
			t.Errorf("the history is not that of the snapshot: %v, compacted %d, was %d", watched, v.Compacted(), before.Compacted())
		}
		if res := put(t, s, "a", "1"); res.Revision != out.Revision+1 {
			t.Errorf("bump %d: the first put has revision %d", bump, res.Revision)
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Error(err)
		}
		all := rowsAt(t, s.View(), 0)
		closeStore(t, s)
		if err := Check(vfs.OS, Dirs{Data: cfg.DataDir}, func(f Finding) { t.Errorf("after the first use: %v", f) }); err != nil {
			t.Error(err)
		}
		s = h.open()
		if have := rowsAt(t, s.View(), 0); have != all {
			t.Errorf("after a restart:\n%s\nbefore:\n%s", have, all)
		}
		closeStore(t, s)
	}
}

// TestRestoreSnapshotOfRestored: a member that was restored and not written to gives a snapshot that keeps its revision.
func TestRestoreSnapshotOfRestored(t *testing.T) {
	snapshot, before := snapshotOf(t)
	cfg := restoreConfig(t, snapshot)
	first := mustRestore(t, cfg)
	s := restored(t, cfg).open()
	again := backupFile(t, s)
	closeStore(t, s)
	appendChecksum(t, again)
	cfg = restoreConfig(t, again)
	second := mustRestore(t, cfg)
	if second.SnapshotRevision != first.Revision || second.Revision != before.Revision()+2_000_000_000 {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

// TestRestoreThreeMembers: members that are restored from one file agree from the start and serve as one cluster.
func TestRestoreThreeMembers(t *testing.T) {
	snapshot, before := snapshotOf(t)
	c := &cluster{t: t, net: newNetwork(t), stores: make([]*Store, 3)}
	t.Cleanup(c.close)
	var hashes []string
	for i := range 3 {
		cfg := restoreConfig(t, snapshot)
		cfg.Name, cfg.PeerURLs = fmt.Sprintf("m%d", i), []string{fmt.Sprintf("http://10.0.0.%d:2380", i+1)}
		cfg.InitialCluster = "m0=http://10.0.0.1:2380,m1=http://10.0.0.2:2380,m2=http://10.0.0.3:2380"
		mustRestore(t, cfg)
		h := restored(t, cfg)
		h.adjust = func(cc *Config) {
			cc.Name, cc.InitialCluster, cc.PeerURLs = cfg.Name, cfg.InitialCluster, cfg.PeerURLs
			cc.Ticks, cc.Now, cc.TickInterval, cc.Connect = nil, nil, 10_000_000, c.net.connect
		}
		c.members = append(c.members, h)
		v := c.start(i).View()
		hashes = append(hashes, fmt.Sprintf("index %d term %d hash %x", v.Index(), v.Term(), v.Hash()))
	}
	if hashes[0] != hashes[1] || hashes[0] != hashes[2] || !strings.HasPrefix(hashes[0], "index 3 term 1") {
		t.Errorf("the members begin with %q", hashes)
	}
	c.leader()
	for i, s := range c.stores {
		put(t, s, "a", fmt.Sprint(i))
	}
	c.converge()
	v := c.stores[0].View()
	if want := before.Revision() + 1_000_000_000 + 3; v.Revision() != want || len(c.stores[0].Members()) != 3 {
		t.Errorf("revision %d, want %d; members %+v", v.Revision(), want, c.stores[0].Members())
	}
}

// TestRestoreOtherFile: two snapshots of one revision that differ in a value give members whose rolling hashes differ.
func TestRestoreOtherFile(t *testing.T) {
	var hashes []uint64
	for _, value := range []string{"1", "2"} {
		s := newHarness(t).open()
		put(t, s, "a", value)
		name := backupFile(t, s)
		closeStore(t, s)
		appendChecksum(t, name)
		cfg := restoreConfig(t, name)
		mustRestore(t, cfg)
		s = restored(t, cfg).open()
		hashes = append(hashes, s.View().Hash())
		closeStore(t, s)
	}
	if hashes[0] == hashes[1] {
		t.Error("different snapshots give equal hashes")
	}
}

// changed is a copy of a snapshot in which something was changed, with a checksum that is right.
func changed(t *testing.T, snapshot string, change func(*bbolt.Tx) error) string {
	t.Helper()
	b, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "changed.db")
	if err := os.WriteFile(name, b[:len(b)-sha256.Size], 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(name, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
	appendChecksum(t, name)
	return name
}

// writtenByEtcd makes it a file that etcd has gone on with: the sums in it do not belong to it any more.
func writtenByEtcd(tx *bbolt.Tx) error {
	return tx.Bucket([]byte("meta")).Put([]byte("consistent_index"), []byte{0, 0, 1, 0, 0, 0, 0, 0})
}

func TestRestoreRefuses(t *testing.T) {
	snapshot, _ := snapshotOf(t)
	whole, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	file := func(b []byte) string {
		name := filepath.Join(t.TempDir(), "snapshot.db")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	summed := func(b []byte) string { name := file(b); appendChecksum(t, name); return name }
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	atPage := bytes.Clone(whole[:len(whole)-sha256.Size])
	copy(atPage[3*16384:], make([]byte, 64)) // the header of a page
	other := func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err }
	for _, c := range []struct {
		name, file, want string
		is               error
	}{
		{"none", filepath.Join(t.TempDir(), "none"), "no such file", nil},
		{"empty", file(nil), "empty", nil},
		{"truncated", file(whole[:len(whole)-5000]), "", ErrNoChecksum},
		{"truncated, with a checksum", summed(whole[:len(whole)/2/16384*16384]), "are in use, and the file has", nil},
		{"flipped bit", file(flipped), "", ErrWrongChecksum},
		{"damaged page", summed(atPage), "page", nil},
		{"no bbolt file", summed(bytes.Repeat([]byte("text"), 16384)), "no meta page has a valid checksum", nil},
		{"another program's", func() string {
			name := filepath.Join(t.TempDir(), "other.db")
			db, err := bbolt.Open(name, 0o600, nil)
			if err := errors.Join(err, db.Update(other), db.Close()); err != nil {
				t.Fatal(err)
			}
			appendChecksum(t, name)
			return name
		}(), "not one of etcd's", nil},
		{"newer", changed(t, snapshot, func(tx *bbolt.Tx) error {
			return errors.Join(tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("3.8.0")), writtenByEtcd(tx))
		}), "3.8.0", ErrNewerFormat},
		{"flipped bit before it was sent", changed(t, snapshot, func(tx *bbolt.Tx) error {
			k, v := tx.Bucket([]byte("key")).Cursor().First()
			v = bytes.Clone(v)
			v[len(v)-1] ^= 1
			return tx.Bucket([]byte("key")).Put(bytes.Clone(k), v)
		}), "checksum", nil},
	} {
		cfg := restoreConfig(t, c.file)
		_, err := Restore(cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
		t.Logf("%s: %v", c.name, err)
		if left, err := filepath.Glob(cfg.DataDir + "/*"); err != nil || len(left) > 0 {
			t.Errorf("%s: %q is left, %v", c.name, left, err)
		}
	}
}

func TestRestoreRefusesFlags(t *testing.T) {
	snapshot, _ := snapshotOf(t)
	cfg := restoreConfig(t, snapshot)
	mustRestore(t, cfg)
	if _, err := Restore(cfg); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("into a data dir that is there: %v", err)
	}
	cfg = restoreConfig(t, snapshot)
	cfg.InitialCluster = "other=http://localhost:2380"
	if _, err := Restore(cfg); err == nil || !strings.Contains(err.Error(), "couldn't find local name") {
		t.Errorf("a cluster without this member: %v", err)
	}
	cfg = restoreConfig(t, snapshot)
	cfg.BumpRevision = 1 << 63
	if _, err := Restore(cfg); err == nil || !strings.Contains(err.Error(), "there are no") {
		t.Errorf("a bump that is too large: %v", err)
	}
	cfg = restoreConfig(t, snapshot)
	info, err := os.Stat(snapshot)
	if err := errors.Join(err, os.Truncate(snapshot, info.Size()-sha256.Size)); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(cfg); !errors.Is(err, ErrNoChecksum) {
		t.Errorf("without a checksum: %v", err)
	}
	cfg.SkipHashCheck = true
	mustRestore(t, cfg)
}

// TestRestoreAuth: who asked its callers who they are goes on to do so, with its users.
func TestRestoreAuth(t *testing.T) {
	before := newHarness(t).open()
	defer closeStore(t, before)
	guard(t, before)
	snapshot := backupFile(t, before)
	appendChecksum(t, snapshot)
	cfg := restoreConfig(t, snapshot)
	mustRestore(t, cfg)
	s := restored(t, cfg).open()
	defer closeStore(t, s)
	if got, want := s.View().Auth(), before.View().Auth(); !got.Enabled() || got.Revision() != want.Revision() || got.Sum() != want.Sum() {
		t.Errorf("restored users %v, roles %v at revision %d; want %v, %v at %d", got.Users(), got.Roles(), got.Revision(), want.Users(), want.Roles(), want.Revision())
	}
	checkGuarded(t, s)
}

// TestRestoreCrashes: whatever operation on a file a crash comes before, what is left is refused, or whole.
func TestRestoreCrashes(t *testing.T) {
	snapshot, before := snapshotOf(t)
	cfg := restoreConfig(t, snapshot)
	var images []string
	cfg.FS = vfs.Hooked(vfs.OS, vfs.Hooks{Before: func(op vfs.Op) error {
		if _, err := os.Stat(cfg.DataDir); err == nil && op.Kind.Changes() {
			image := filepath.Join(t.TempDir(), fmt.Sprint(len(images)))
			if err := os.CopyFS(image, os.DirFS(cfg.DataDir)); err != nil {
				t.Error(err)
			}
			images = append(images, image)
		}
		return nil
	}})
	if _, err := Restore(cfg); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, image := range append(images, cfg.DataDir) {
		h := newHarness(t)
		h.fs, h.dir, h.db = vfs.OS, image, Dirs{Data: image}.db()
		s, err := Open(h.config())
		if errors.Is(err, ErrRestoring) {
			refused++
			if _, err := Restore(RestoreConfig{Snapshot: snapshot, DataDir: image}); !errors.Is(err, ErrRestoring) {
				t.Errorf("restore beside one that did not end: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", image, err)
			continue
		}
		if rev := s.View().Revision(); rev != before.Revision()+1_000_000_000 {
			t.Errorf("%s starts at revision %d", image, rev)
		}
		if err := s.halt(); err != nil {
			t.Error(err)
		}
	}
	if refused < 10 || refused == len(images)+1 {
		t.Errorf("%d of %d images are refused", refused, len(images)+1)
	}
}

// TestRestoreFailures: whatever operation on a file fails, nothing is left.
func TestRestoreFailures(t *testing.T) {
	snapshot, _ := snapshotOf(t)
	for n := int64(1); ; n++ {
		cfg := restoreConfig(t, snapshot)
		if err := os.Mkdir(cfg.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		cfg.FS = vfs.Hooked(vfs.OS, vfs.Hooks{Before: vfs.FailNth(n, syscall.EIO, func(op vfs.Op) bool {
			return op.Kind.Changes() && op.Kind != vfs.OpRemove
		})})
		_, err := Restore(cfg)
		left, globErr := filepath.Glob(cfg.DataDir + "/*")
		if err == nil && n > 10 {
			break
		}
		if err == nil || globErr != nil {
			t.Fatalf("operation %d: %v, %v", n, err, globErr)
		}
		if len(left) > 0 && filepath.Base(left[0]) != "member" { // the last sync of the directory failed: all is there
			t.Errorf("operation %d: %v; %q is left", n, err, left)
		}
	}
}
