package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// backupFile streams a backup into a file and checks the size that was promised.
func backupFile(t *testing.T, s *Store) string {
	t.Helper()
	size, version, rc, err := s.Backup(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != size || version != "3.7.0" {
		t.Fatalf("backup of %d bytes and version %s, promised were %d", len(b), version, size)
	}
	name := filepath.Join(t.TempDir(), "backup.db")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func fill(t *testing.T, s *Store) {
	t.Helper()
	ctx := context.Background()
	if _, err := s.Propose(ctx, Command{Kind: mvcc.KindLeaseGrant, Request: &pb.InternalRaftRequest{
		LeaseGrant: &pb.LeaseGrantRequest{ID: 77, TTL: 600}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := tryPut(s, fmt.Sprintf("/registry/pods/p%03d", i%100), fmt.Sprintf("value-%d", i), int64(77*(i%2))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if _, err := s.Propose(ctx, Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{
			DeleteRange: &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "/registry/pods/p%03d", i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Propose(ctx, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{
		Compaction: &pb.CompactionRequest{Revision: 150}}}); err != nil {
		t.Fatal(err)
	}
}

func TestBackupHoldsEverything(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	fill(t, s)
	if err := s.CompactWait(context.Background(), 150); err != nil {
		t.Fatal(err)
	}
	name := backupFile(t, s)
	found := 0
	content, err := checkDB(name, func(f Finding) { found++; t.Errorf("backup: %v", f) })
	if err != nil {
		t.Fatal(err)
	}
	if content.Index == 0 || content.CompactFinished != 150 || len(content.Leases) != 1 || len(content.Members) != 1 || content.StorageVersion != "3.7.0" {
		t.Errorf("backup holds %+v", content)
	}
}

// TestDefragment: reads, writes and a backup that began before go on, and nothing is lost.
func TestDefragment(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	for i := range 400 {
		put(t, s, fmt.Sprintf("k%d", i%5), fmt.Sprintf("%02000d", i))
	}
	ctx := context.Background()
	if err := s.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Propose(ctx, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{
		Compaction: &pb.CompactionRequest{Revision: 400}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.CompactWait(ctx, 400); err != nil {
		t.Fatal(err)
	}
	size, _, rc, err := s.Backup(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Status()
	if err := s.Defragment(ctx); err != nil {
		t.Fatal(err)
	}
	after := s.Status()
	if after.DBSize >= before.DBSize || after.DBSize == 0 || before.DBSizeInUse >= before.DBSize {
		t.Errorf("defragmentation: size %d -> %d, in use before %d", before.DBSize, after.DBSize, before.DBSizeInUse)
	}
	put(t, s, "after", "1")
	if n, err := io.Copy(io.Discard, rc); err != nil || n != size {
		t.Errorf("backup of the old file: %d of %d bytes, %v", n, size, err)
	}
	rc.Close()
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "after"); got != "1" {
		t.Errorf("after = %q", got)
	}
	if got := get(t, s, "k4"); got != fmt.Sprintf("%02000d", 399) {
		t.Errorf("k4 = %.20q...", got)
	}
}

// peer is a real program of etcd's, built if it is missing. The package that knows how is one of the tests', which nothing may
// import; it has a command.
func peer(t *testing.T, name string) string {
	t.Helper()
	build := exec.Command("go", "run", "./test/internal/peers/build", name)
	build.Dir = filepath.Join("..", "..")
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		t.Fatalf("build the real %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// TestEtcdutlReadsBackup: etcd's own tool accepts a backup, restores it, and computes the hash that we do.
func TestEtcdutlReadsBackup(t *testing.T) {
	etcdutl := peer(t, "etcdutl")
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	fill(t, s)
	name := backupFile(t, s)

	var status struct {
		Revision  int64  `json:"revision"`
		TotalKey  int    `json:"totalKey"`
		TotalSize int64  `json:"totalSize"`
		Version   string `json:"version"`
	}
	run(t, &status, etcdutl, "snapshot", "status", name, "-w", "json")
	if status.Revision != int64(s.View().Revision()) || status.Version != "3.7.0" {
		t.Errorf("etcdutl snapshot status says %+v; the store is at revision %d", status, s.View().Revision())
	}
	var hashed struct {
		Hash            uint32 `json:"hash"`
		HashRevision    int64  `json:"hashRevision"`
		CompactRevision int64  `json:"compactRevision"`
	}
	run(t, &hashed, etcdutl, "hashkv", name, "-w", "json")
	hash, compacted, rev, err := s.View().HashKV(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if hashed.Hash != hash || hashed.CompactRevision != int64(compacted) || hashed.HashRevision != int64(rev) {
		t.Errorf("etcdutl hashkv says %+v, the store %d at %d compacted %d", hashed, hash, rev, compacted)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	run(t, nil, etcdutl, "snapshot", "restore", name, "--data-dir", restored, "--skip-hash-check")
	db, err := backend.Open(filepath.Join(restored, "member", "snap", "db"), backend.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Check(func(offset int64, reason string) { t.Errorf("restored: offset %d: %s", offset, reason) }); err != nil {
		t.Error(err)
	}
	db.Close()
	if _, err := Open(Config{DataDir: restored}); err == nil {
		t.Error("a data dir of etcd was opened")
	} else {
		t.Logf("refused: %v", err)
	}
}

func run(t *testing.T, into any, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s %v: %v\n%s", filepath.Base(name), args, err, exit.Stderr)
		}
		t.Fatalf("%s %v: %v", filepath.Base(name), args, err)
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			t.Fatalf("%s %v: %v in %s", filepath.Base(name), args, err, out)
		}
	}
}

// leaving is a context that ends; who looks once the call is over finds that it has not, as if the look had come right before its end.
type leaving struct {
	context.Context
	over chan struct{}
}

func (l leaving) Err() error {
	select {
	case <-l.over:
		return nil
	default:
		return l.Context.Err()
	}
}

// TestBackupThatNobodyWaitsFor: whoever asks for a backup may be gone when it is ready to be read. The reader of the file is ended then, or
// the file could never be closed.
func TestBackupThatNobodyWaitsFor(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	h.adjust = func(c *Config) {
		c.OnEvent = func(e Event) {
			if done, ok := e.(CheckpointDone); ok && done.Reason == "backup" {
				cancel()
				<-over
			}
		}
	}
	s := h.open()
	put(t, s, "a", "1")
	if _, _, _, err := s.Backup(leaving{ctx, over}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(over)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	await(t, "the end", func() bool { return len(closed) == 1 })
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
