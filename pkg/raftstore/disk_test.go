package raftstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestFullDisk: writes that need space fail, reads and deletes go on, nothing acknowledged is lost, and it recovers by itself.
func TestFullDisk(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	put(t, s, "before", "1")
	mem := h.fillDisk()
	acked := map[string]string{"before": "1"}
	full := false
	for i := 0; i < 2000 && !full; i++ {
		key, value := fmt.Sprintf("k%d", i%40), fmt.Sprintf("%01000d", i)
		switch _, err := tryPut(s, key, value, 0); {
		case err == nil:
			acked[key] = value
		case errors.Is(err, mvcc.ErrNoSpace):
			full = true
		default:
			t.Fatalf("put: %v", err)
		}
	}
	if !full {
		t.Fatal("the disk did not become full")
	}
	if errs := s.Status().Errors; !slices.Equal(errs, []string{"no space left on the disk of the log"}) {
		t.Errorf("errors in the status of a full disk: %q", errs)
	}
	if full := testutil.ToFloat64(s.metrics.spaceLow); full != 1 {
		t.Errorf("shim_disk_full is %v", full)
	}
	if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{
		DeleteRange: &pb.DeleteRangeRequest{Key: []byte("before")}}}); err != nil {
		t.Errorf("delete on a full disk: %v", err)
	}
	delete(acked, "before")
	if _, err := tryPut(s, "k0", fmt.Sprintf("%01000d", 7), 0); !errors.Is(err, mvcc.ErrNoSpace) {
		t.Errorf("update that is as long, on a full disk: %v", err)
	}
	acked["k0"] = "short"
	put(t, s, "k0", "short")
	for k, want := range acked {
		if got := get(t, s, k); got != want {
			t.Errorf("%s = %.20q..., acknowledged was %.20q...", k, got, want)
		}
	}
	mem.SetCapacity(0)
	h.pass(time.Second)
	h.awaitTicking("recovery", func() bool {
		return !s.spaceLow.Load()
	})
	put(t, s, "after", "1")
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	acked["after"] = "1"
	for k, want := range acked {
		if got := get(t, s, k); got != want {
			t.Errorf("%s = %.20q... after a restart, acknowledged was %.20q...", k, got, want)
		}
	}
	if got := get(t, s, "before"); got != "<none>" {
		t.Errorf("before = %q, though it was deleted", got)
	}
}

func deleteCommand(key string) Command {
	return Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// TestLogFull: when even what the log kept in reserve is used up, everything is refused, what is under way waits, and all of it goes on
// once there is room.
func TestLogFull(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 64 << 10 }
	s := h.open()
	put(t, s, "a", "1")
	mem := h.fillDisk()
	deleted := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 1_000_000; n++ {
			if _, err := s.Propose(context.Background(), deleteCommand("b")); err != nil {
				if !errors.Is(err, mvcc.ErrNoSpace) && !errors.Is(err, ErrStopped) {
					t.Errorf("delete: %v", err)
				}
				break
			}
		}
		deleted <- n
	}()
	await(t, "end of the log", s.logFull.Load)
	if _, err := s.Propose(context.Background(), deleteCommand("c")); !errors.Is(err, mvcc.ErrNoSpace) {
		t.Errorf("delete with a full log: %v", err)
	}
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	mem.SetCapacity(0)
	h.awaitTicking("recovery", func() bool {
		return !s.logFull.Load() && !s.spaceLow.Load()
	})
	if _, err := s.Propose(context.Background(), deleteCommand("a")); err != nil {
		t.Errorf("delete after the recovery: %v", err)
	}
	closing := make(chan error, 1)
	go func() { closing <- s.Close() }()
	<-deleted // ErrStopped ends it, if nothing did before
	if err := <-closing; err != nil {
		t.Error(err)
	}
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "a"); got != "<none>" {
		t.Errorf("a = %q after a restart", got)
	}
}

// TestFlippedBitInDatabase: a bit that flips in what the file holds is noticed, and the file is named.
func TestFlippedBitInDatabase(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	fill(t, s)
	value := strings.Repeat("needle", 50)
	put(t, s, "x", value)
	closeStore(t, s)
	whole, err := os.ReadFile(h.db)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(whole), value)
	if at < 0 {
		t.Fatal("the value is not in the file")
	}
	const pageBytes = 16 << 10 // of the backend
	page := at / pageBytes * pageBytes
	for name, flip := range map[string]int{"value": at + 7, "page id": page, "page flags": page + 8, "page count": page + 10,
		"element": page + 16 + 5, "row key": at - 30} {
		t.Run(name, func(t *testing.T) {
			damaged := append([]byte(nil), whole...)
			damaged[flip] ^= 0x40
			if err := os.WriteFile(h.db, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			found := 0
			if err := check(h.fs, Dirs{Data: h.dir}, h.db, func(f Finding) { found++; t.Logf("finding: %v", f) }); err != nil || found == 0 {
				t.Errorf("check: %d findings, %v", found, err)
			}
			s, err := Open(h.config())
			if err == nil {
				s.Close()
				t.Fatal("a damaged file was opened")
			}
			var c *CorruptError
			if !errors.As(err, &c) || c.File != h.db {
				t.Fatalf("open: %v", err)
			}
			t.Logf("flip at %d: %v", flip, err)
			if c.Offset < 0 || c.Offset > int64(flip) && c.Offset-int64(flip) > pageBytes {
				t.Errorf("flip at %d reported at %d", flip, c.Offset)
			}
		})
	}
	if err := os.WriteFile(h.db, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s = h.open()
	defer closeStore(t, s)
	if got := get(t, s, "x"); got != value {
		t.Errorf("x = %.20q...", got)
	}
}
