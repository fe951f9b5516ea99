package robustness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const (
	damageSegmentBytes = 32 << 10
	damageFlips        = 150 // in the log, and as many in the database
	damageProcesses    = 12  // of them with the real process
	// lastKey is written last. Nothing that was written later shows that it was durable, so that damage to its record can look like
	// a torn write (package wal); everything before it must never be lost silently.
	lastKey = "zz-last"
)

// wreck is the directory that a killed server left, and what it had acknowledged.
type wreck struct {
	dir   string
	acked map[string]string
}

// newWreck writes with small segments: some are given back, some hold what the database has too, some what only they have.
func newWreck(t *testing.T) *wreck {
	t.Helper()
	w := &wreck{dir: filepath.Join(t.TempDir(), "wreck"), acked: make(map[string]string)}
	live := filepath.Join(t.TempDir(), "data")
	s, err := raftstore.Open(raftstore.Config{DataDir: live, WALSegmentBytes: damageSegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) {
		t.Helper()
		req := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}
		if _, err := s.Propose(context.Background(), raftstore.Command{Kind: mvcc.KindPut, Request: req}); err != nil {
			t.Fatal(err)
		}
		w.acked[key] = value
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 800 {
		noise := make([]byte, i%900/2) // which the log does not pack
		for j := range noise {
			noise[j] = byte(rng.Uint32())
		}
		put(fmt.Sprintf("k/%d", i%150), fmt.Sprintf("%d %0*d %x", i, i%900, i, noise))
		if i == 200 || i == 400 {
			if err := s.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(lastKey, "last")
	await(t, "the spare segment", func() bool { _, err := os.Stat(filepath.Join(live, "member/wal/spare")); return err == nil }) // else files change names meanwhile
	copyDir(t, live, w.dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(w.segments(t)); n < 4 {
		t.Fatalf("%d segments are too few for this test", n)
	}
	return w
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// copy is one to damage.
func (w *wreck) copy(t *testing.T) *wreck {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, w.dir, dir)
	return &wreck{dir: dir, acked: w.acked}
}

func (w *wreck) db() string { return filepath.Join(w.dir, "member/snap/db") }

func (w *wreck) segments(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, "member/wal/*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// verdict is what was made of a damaged directory.
type verdict struct {
	refused  error // by Open
	findings []string
	lost     []string // keys that are not what was acknowledged
}

// judge lets Check and Open look at the directory.
func (w *wreck) judge(t *testing.T) verdict {
	t.Helper()
	var v verdict
	err := raftstore.Check(vfs.OS, raftstore.Dirs{Data: w.dir}, func(f raftstore.Finding) { v.findings = append(v.findings, f.String()) })
	if err != nil {
		v.findings = append(v.findings, err.Error())
	}
	s, err := raftstore.Open(raftstore.Config{DataDir: w.dir})
	if err != nil {
		v.refused = err
		return v
	}
	res, err := s.View().Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	missing := maps.Clone(w.acked)
	for _, x := range res.Versions {
		if missing[string(x.Key())] == string(x.Value()) {
			delete(missing, string(x.Key()))
		}
	}
	v.lost = slices.Sorted(maps.Keys(missing))
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return v
}

// demand is what must be true of every verdict: what was acknowledged is there, or the member refuses to start with one line that
// names the file, and Check finds it too.
func (v verdict) demand(t *testing.T, what, file string) {
	t.Helper()
	if v.refused == nil {
		if len(v.lost) > 0 && !slices.Equal(v.lost, []string{lastKey}) {
			t.Errorf("%s: silently lost %d keys: %v", what, len(v.lost), v.lost[:min(5, len(v.lost))])
		}
		return
	}
	line := v.refused.Error()
	if strings.Contains(line, "\n") || !strings.Contains(line, file) {
		t.Errorf("%s: the line does not name %s: %q", what, file, line)
	}
	if strings.Contains(file, ".wal") && !strings.Contains(line, "offset") {
		t.Errorf("%s: the line names no offset: %q", what, line)
	}
	if len(v.findings) == 0 {
		t.Errorf("%s: refused with %q, and shim check finds nothing", what, line)
	}
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// place is where a bit may flip.
type place struct {
	path string // from the data dir
	at   int64
}

// places are n random ones in the bytes of a file that are not zeros, headers and all; and the bytes around them.
func places(t *testing.T, rng *rand.Rand, dir string, paths []string, n int) (found []place) {
	t.Helper()
	var all []place
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range data {
			if c != 0 || i > 0 && data[i-1] != 0 {
				all = append(all, place{rel, int64(i)})
			}
		}
		for i := range 64 { // the header gets more than its share
			found = append(found, place{rel, int64(i)})
		}
	}
	for range n {
		found = append(found, all[rng.IntN(len(all))])
	}
	rng.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found[:n]
}

// TestFlippedBits: no bit that flips in the directory of a killed server loses anything without a word.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWreck(t)
	if v := w.copy(t).judge(t); v.refused != nil || len(v.lost) > 0 || len(v.findings) > 0 {
		t.Fatalf("undamaged: %+v", v)
	}
	all := append(places(t, rng, w.dir, w.segments(t), damageFlips), places(t, rng, w.dir, []string{w.db()}, damageFlips)...)
	refused, whole := 0, 0
	for i, p := range all {
		bit := rng.IntN(8)
		what := fmt.Sprintf("bit %d of %s at offset %d", bit, filepath.Base(p.path), p.at)
		c := w.copy(t)
		flip(t, filepath.Join(c.dir, p.path), p.at, bit)
		if i%(len(all)/damageProcesses) == 0 {
			c.copy(t).judgeProcess(t, what)
		}
		v := c.judge(t)
		v.demand(t, what, filepath.Base(p.path))
		if v.refused != nil {
			refused++
		} else {
			whole++
		}
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flips were refused, %d changed nothing that counts", refused, whole)
	if refused == 0 || whole == 0 {
		t.Error("the test has lost its sense")
	}
}

// judgeProcess compares what the real process and its check say.
func (w *wreck) judgeProcess(t *testing.T, what string) {
	t.Helper()
	out, checkErr := exec.Command(binary, "check", w.dir).CombinedOutput()
	var exit *exec.ExitError
	if checkErr != nil && (!errors.As(checkErr, &exit) || exit.ExitCode() != 1) {
		t.Errorf("%s: shim check: %v\n%s", what, checkErr, out)
	}
	s := newServer(t, w.dir)
	s.launch()
	select {
	case <-s.ready:
		s.kill()
		return
	case <-s.ended:
	case <-time.After(patience):
		t.Fatalf("%s: shim neither starts nor ends", what)
	}
	lines := s.fatal()
	if code := s.wait(); code != 1 || len(lines) != 1 {
		t.Errorf("%s: exit code %d, lines %q", what, code, lines)
	}
	if checkErr == nil {
		t.Errorf("%s: shim does not start, and shim check finds nothing: %q", what, lines)
	}
}

// TestLostFiles: a file that is missing, cut off or empty.
func TestLostFiles(t *testing.T) {
	t.Parallel()
	w := newWreck(t)
	segments := w.segments(t)
	remove := func(p string) error { return os.Remove(p) }
	truncate := func(size int64) func(string) error {
		return func(p string) error { return os.Truncate(p, size) }
	}
	cases := map[string]struct {
		path   string
		damage func(string) error
	}{
		"no database":        {w.db(), remove},
		"empty database":     {w.db(), truncate(0)},
		"database of a page": {w.db(), truncate(4096)},
		"half a database":    {w.db(), truncate(64 << 10)},
	}
	for i, p := range segments {
		name := fmt.Sprintf("segment %d of %d ", i+1, len(segments))
		cases[name+"missing"] = struct {
			path   string
			damage func(string) error
		}{p, remove}
		for _, size := range []int64{0, 100, 4096, 10_000} {
			cases[name+fmt.Sprintf("cut at %d", size)] = struct {
				path   string
				damage func(string) error
			}{p, truncate(size)}
		}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := w.copy(t)
			rel, err := filepath.Rel(w.dir, tc.path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(filepath.Join(c.dir, rel)); err != nil {
				t.Fatal(err)
			}
			v := c.judge(t)
			t.Log(v.refused)
			if v.refused == nil && len(v.lost) > 0 {
				t.Errorf("silently lost %d keys: %v", len(v.lost), v.lost[:min(5, len(v.lost))])
			}
			if v.refused != nil && (strings.Contains(v.refused.Error(), "\n") || len(v.findings) == 0) {
				t.Errorf("refused with %q, findings %q", v.refused, v.findings)
			}
			if strings.Contains(name, "database") && (v.refused == nil || !strings.Contains(v.refused.Error(), w.db()[len(w.dir):])) {
				t.Errorf("the database is at fault, and the line does not name it: %v", v.refused)
			}
		})
	}
}

// TestLostLogOfAYoungServer: the server was killed before its first regular checkpoint, and the only segment of its log is gone. It must
// not begin anew.
func TestLostLogOfAYoungServer(t *testing.T) {
	t.Parallel()
	live := filepath.Join(t.TempDir(), "data")
	s := startServer(t, live)
	newBookkeeper(t, s.dial()).mustPut("a", "1")
	s.kill()
	for _, lost := range []string{"member/wal/0000000000000001.wal", "member/wal", "member/snap/db"} {
		dir := filepath.Join(t.TempDir(), "data")
		copyDir(t, live, dir)
		if err := os.RemoveAll(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(binary, "check", dir).CombinedOutput()
		if err == nil {
			t.Errorf("shim check without %s: %s", lost, out)
		}
		refuses(t, dir, filepath.Dir(lost))
	}
}

// hashDir is what is in a directory.
func hashDir(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			found[p] = "directory"
			return nil
		}
		data, err := os.ReadFile(p)
		found[p] = string(bytes.TrimRight(data, "\x00"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
