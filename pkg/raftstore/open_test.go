package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// oneLine checks that Open refuses with an error that an operator can read.
func oneLine(t *testing.T, h *harness, want error, words ...string) {
	t.Helper()
	s, err := Open(h.config())
	if err == nil {
		s.Close()
		t.Fatal("the data dir was opened")
	}
	t.Logf("%v", err)
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestOpenInUse(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	oneLine(t, h, ErrInUse, "/data")
	if err := check(h.fs, Dirs{Data: h.dir}, h.db, func(Finding) {}); !errors.Is(err, ErrInUse) {
		t.Errorf("check: %v", err)
	}
}

func TestOpenDataDirOfEtcd(t *testing.T) {
	h := newHarness(t)
	if err := h.fs.MkdirAll("/data/member/wal"); err != nil {
		t.Fatal(err)
	}
	f, err := h.fs.Create("/data/member/wal/0000000000000000-0000000000000000.wal")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	oneLine(t, h, ErrEtcdDataDir, "etcdutl snapshot")
}

func TestOpenUnreadable(t *testing.T) {
	h := newHarness(t)
	closeStore(t, h.open())
	h.fs = vfs.Hooked(h.fs, vfs.Hooks{Before: func(op vfs.Op) error {
		if op.Kind == vfs.OpList {
			return fs.ErrPermission
		}
		return nil
	}})
	oneLine(t, h, fs.ErrPermission, "/data")
}

// TestOpenNewerFormat: what a later version writes is refused, and not taken for damage.
func TestOpenNewerFormat(t *testing.T) {
	h := newHarness(t)
	newer := wal.Record{Type: recordIdentity, Data: binary.LittleEndian.AppendUint32(nil, formatVersion+1)}
	w, err := wal.Open(h.fs, path.Join(h.dir, "member", "wal"), wal.Options{SegmentBytes: 1 << 20, Header: func() []wal.Record { return []wal.Record{newer} }},
		func(wal.Position, wal.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	oneLine(t, h, ErrNewerFormat, "format 3")
}

// TestOpenWithoutLog: a database without its log is not a new member.
func TestOpenWithoutLog(t *testing.T) {
	h := newHarness(t)
	closeStore(t, h.open())
	h.fs = vfs.NewMem()
	var c *CorruptError
	s, err := Open(h.config())
	if err == nil {
		s.Close()
	}
	if !errors.As(err, &c) {
		t.Errorf("open: %v", err)
	}
}

// TestOpenWithAnOlderLog: a log that ends before the database's index is refused, be it a copy of earlier, one of which the end is missing,
// or one that was begun and never used.
func TestOpenWithAnOlderLog(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.WALSegmentBytes = 16 << 10 }
	s := h.open()
	begun := h.fs.(*vfs.Mem).Crash(vfs.KeepAll)
	first := s.View().Index()
	for i := range 30 {
		put(t, s, "k", fmt.Sprint(i))
	}
	earlier, old := h.fs.(*vfs.Mem).Crash(vfs.KeepAll), s.View().Index()
	put(t, s, "k", "new")
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	index := s.View().Index()
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	now := h.fs
	for end, log := range map[uint64]vfs.FS{first: begun, old: earlier} {
		h.fs = log
		var c *CorruptError
		s, err := Open(h.config())
		if err == nil {
			s.Close()
		}
		if !errors.As(err, &c) || !strings.Contains(err.Error(), fmt.Sprintf("ends at index %d, though the database holds the state at index %d", end, index)) {
			t.Errorf("a log that ends at %d: %v", end, err)
		}
		found := 0
		if err := check(h.fs, Dirs{Data: h.dir}, h.db, func(f Finding) { found++; t.Logf("%v", f) }); err != nil || found != 1 {
			t.Errorf("check: %d findings, %v", found, err)
		}
	}
	h.fs = now
	closeStore(t, h.open())
}

// TestOpenInitialClusterErrors: the texts are those of etcd.
func TestOpenInitialClusterErrors(t *testing.T) {
	for cluster, want := range map[string]string{
		"other=http://localhost:2380":   `couldn't find local name "default" in the initial cluster configuration`,
		"default=http://localhost:9999": "--initial-cluster has default=http://localhost:9999 but missing from --initial-advertise-peer-urls=http://localhost:2380",
		"default=localhost:2380":        "error setting up initial cluster",
	} {
		h := newHarness(t)
		h.adjust = func(c *Config) { c.InitialCluster = cluster }
		if s, err := Open(h.config()); err == nil {
			s.Close()
			t.Errorf("%s was accepted", cluster)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", cluster, err, want)
		}
	}
}
