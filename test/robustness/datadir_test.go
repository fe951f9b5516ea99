package robustness

import (
	little "encoding/binary"
	"hash/crc32"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/internal/freeport"
	"github.com/kubeshim/shim/test/internal/peers"
)

// refuses starts shim on the directory, which has to end with exit code 1 and one line that has all of want in it.
func refuses(t *testing.T, dir string, want ...string) {
	t.Helper()
	s := newServer(t, dir)
	s.launch()
	code := s.wait()
	lines := s.fatal()
	if code != 1 || len(lines) != 1 {
		t.Fatalf("exit code %d, lines %q", code, lines)
	}
	for _, w := range want {
		if !strings.Contains(lines[0], w) {
			t.Errorf("the line does not say %q: %s", w, lines[0])
		}
	}
}

// unchanged says which files of a directory are not what they were. A lock file may have come.
func unchanged(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := hashDir(t, dir)
	delete(after, filepath.Join(dir, "member", "lock"))
	delete(before, filepath.Join(dir, "member", "lock"))
	if maps.Equal(before, after) {
		return
	}
	for p, content := range after {
		if was, ok := before[p]; !ok || was != content {
			t.Errorf("%s was changed, or is new", p)
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok {
			t.Errorf("%s is gone", p)
		}
	}
}

func TestDataDirInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first := startServer(t, dir)
	b := newBookkeeper(t, first.dial())
	b.mustPut("a", "1")
	await(t, "the spare segment", func() bool { _, err := os.Stat(filepath.Join(dir, "member/wal/spare")); return err == nil })
	before := hashDir(t, dir)
	refuses(t, dir, dir, "in use")
	unchanged(t, dir, before)
	for _, command := range []string{"check", "dump"} {
		out, err := exec.Command(binary, command, dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "in use") {
			t.Errorf("shim %s of a directory in use: %v\n%s", command, err, out)
		}
	}
	b.mustPut("b", "2")
	b.verify("while others came and went")
}

// TestDataDirIsAFile: also where a directory inside should be, root or not.
func TestDataDirIsAFile(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"data", "data/member", "data/member/wal", "data/member/snap"} {
		t.Run(strings.ReplaceAll(file, "/", " "), func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("not a directory"), 0o600); err != nil {
				t.Fatal(err)
			}
			refuses(t, filepath.Join(root, "data"), path, "not a directory")
			if got, err := os.ReadFile(path); err != nil || string(got) != "not a directory" {
				t.Errorf("the file was changed: %q, %v", got, err)
			}
		})
	}
}

// newerSegment raises the format version in the header of a segment, with the right checksum, as a later version would write it.
func newerSegment(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block := data[:4096]
	little.LittleEndian.PutUint32(block[8:], little.LittleEndian.Uint32(block[8:])+1)
	clear(block[12:16])
	little.LittleEndian.PutUint32(block[12:], crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newerDatabase makes the file one of a later etcd.
func newerDatabase(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket([]byte("shim")); err != nil { // checksums, which etcd does not write
			return err
		}
		return tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("3.99.0"))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDataDirOfANewerFormat(t *testing.T) {
	t.Parallel()
	w := &wreck{dir: filepath.Join(t.TempDir(), "data")}
	s := startServer(t, w.dir)
	newBookkeeper(t, s.dial()).mustPut("a", "1")
	if code := s.signal(os.Interrupt); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	t.Run("log", func(t *testing.T) {
		c := w.copy(t)
		for _, p := range c.segments(t) {
			newerSegment(t, p)
		}
		before := hashDir(t, c.dir)
		refuses(t, c.dir, c.dir, "newer format")
		unchanged(t, c.dir, before)
	})
	t.Run("database", func(t *testing.T) {
		c := w.copy(t)
		newerDatabase(t, c.db())
		before := hashDir(t, c.dir)
		refuses(t, c.dir, c.dir, "3.99.0")
		unchanged(t, c.dir, before)
	})
}

// TestDataDirOfEtcd: what the real etcd has written is neither read nor touched.
func TestDataDirOfEtcd(t *testing.T) {
	t.Parallel()
	etcd := peers.Path(t, "etcd")
	dir := filepath.Join(t.TempDir(), "etcd")
	client, peer := "http://"+freeport.Addr(t), "http://"+freeport.Addr(t)
	cmd := exec.Command(etcd, "--data-dir="+dir, "--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{process: process{t: t}, client: strings.TrimPrefix(client, "http://")}
	b := newBookkeeper(t, s.dial())
	err := b.put("a", "1", 0)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if err != nil {
		t.Fatalf("put to etcd: %v", err)
	}
	before := hashDir(t, dir)
	refuses(t, dir, dir, "etcdctl snapshot save")
	unchanged(t, dir, before)
	out, err := exec.Command(binary, "check", dir).CombinedOutput()
	if err == nil || strings.Count(strings.TrimSpace(string(out)), "\n") > 0 {
		t.Errorf("shim check: %v\n%s", err, out)
	}
	unchanged(t, dir, before)
}
