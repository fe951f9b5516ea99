package raftstore

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// harness is a data dir that outlives the stores opened on it.
type harness struct {
	t       testing.TB
	fs      vfs.FS
	dir     string
	db      string
	mu      sync.Mutex
	now     time.Time
	events  []string
	structs []Event
	ticks   chan time.Time
	adjust  func(*Config)
}

// testHeldBytes lets short logs be held at a start, while longer ones are read twice.
const testHeldBytes = 2 << 10

func newHarness(t testing.TB) *harness {
	return &harness{t: t, fs: vfs.NewMem(), dir: "/data", db: filepath.Join(t.TempDir(), "db"), now: time.Unix(1_700_000_000, 0),
		ticks: make(chan time.Time)}
}

func (h *harness) config() Config {
	cfg := Config{DataDir: h.dir, FS: h.fs, DBPath: h.db, Ticks: h.ticks, WALSegmentBytes: 1 << 20, Quota: -1, heldBytes: testHeldBytes,
		Now: func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now },
		OnEvent: func(e Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, e.String())
			h.structs = append(h.structs, e)
		}}
	if h.adjust != nil {
		h.adjust(&cfg)
	}
	return cfg
}

func (h *harness) open() *Store {
	h.t.Helper()
	s, err := Open(h.config())
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	return s
}

// crash ends a store whose answers nobody hears any more. What of its log was not synced is lost. The file of its database is that of
// its end: if that has had a checkpoint since the log was copied, the crash was a moment later.
func (h *harness) crash(s *Store) {
	h.t.Helper()
	mem := h.fs.(*vfs.Mem)
	log := mem.Crash(vfs.LoseAll)
	if err := s.halt(); err != nil {
		h.t.Errorf("halt: %v", err)
	}
	ahead := false
	if err := check(log, Dirs{Data: h.dir}, h.db, func(Finding) { ahead = true }); err != nil || ahead {
		log = mem.Crash(vfs.LoseAll)
	}
	h.fs = log
}

// fillDisk leaves the log the segments that it has, the spare one included, and no room beside.
func (h *harness) fillDisk() *vfs.Mem {
	h.t.Helper()
	mem := h.fs.(*vfs.Mem)
	await(h.t, "the spare segment", func() bool { // which a goroutine of the log's makes
		_, err := mem.Stat(path.Join(Dirs{Data: h.dir}.wal(), "spare"))
		return err == nil
	})
	mem.SetCapacity(mem.Used())
	return mem
}

// pass moves the clock and ticks until the node has seen it.
func (h *harness) pass(d time.Duration) {
	h.mu.Lock()
	h.now = h.now.Add(d)
	h.mu.Unlock()
	h.ticks <- time.Time{}
}

// awaitTicking is await while the clock ticks and its time stands still.
func (h *harness) awaitTicking(what string, ok func() bool) {
	h.t.Helper()
	await(h.t, what, func() bool {
		select {
		case h.ticks <- time.Time{}:
		default:
		}
		return ok()
	})
}

func put(t testing.TB, s *Store, key, value string) mvcc.Result {
	t.Helper()
	res, err := tryPut(s, key, value, 0)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return res
}

func tryPut(s *Store, key, value string, lease int64) (mvcc.Result, error) {
	cmd := putCommand(key, value)
	cmd.Request.Put.Lease = lease
	return s.Propose(context.Background(), cmd)
}

func putCommand(key, value string) Command {
	return Command{Kind: mvcc.KindPut,
		Request: &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func get(t testing.TB, s *Store, key string) string {
	t.Helper()
	v, err := s.ReadView(context.Background())
	if err != nil {
		t.Fatalf("read view: %v", err)
	}
	got := v.Get([]byte(key))
	if got == nil {
		return "<none>"
	}
	return string(got.Value())
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestPutSurvivesRestart(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	if res := put(t, s, "a", "1"); res.Revision != 2 {
		t.Errorf("first put has revision %d, want 2", res.Revision)
	}
	hash, index := s.View().Hash(), s.View().Index()
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q after restart", got)
	}
	t.Logf("events: %q; hash %x at %d", h.events, hash, index)
	st := s.Status()
	if st.DBSize == 0 || st.Leader != s.MemberID() || st.ClusterVersion != "3.7.0" {
		t.Errorf("status %+v", st)
	}
	if ms := s.Members(); len(ms) != 1 || ms[0].Name != "default" || len(ms[0].ClientURLs) != 1 {
		t.Errorf("members %+v", ms)
	}
	if id := fmt.Sprintf("%x %x", s.MemberID(), s.ClusterID()); id != "8e9e05c52164694d cdf818194e3a8c32" {
		t.Errorf("ids %s are not those that etcd computes", id)
	}
}
