package wal

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// TestRealFiles runs a log on the real file system, with the reserve goroutine, through rotations, releases and reopenings.
func TestRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "member", "wal")
	syncs := 0
	o := Options{SegmentBytes: 64 << 10, OnFsync: func(time.Duration) { syncs++ }}
	var want []Record
	for round := range 4 {
		recs, replay := collect()
		w, err := Open(vfs.OS, dir, o, replay)
		if err != nil {
			t.Fatal(err)
		}
		if len(*recs) > len(want) {
			t.Fatalf("round %d: %d records, want at most %d", round, len(*recs), len(want))
		}
		want = want[len(want)-len(*recs):]
		for i, r := range *recs {
			if r.Type != want[i].Type || string(r.Data) != string(want[i].Data) {
				t.Fatalf("round %d: record %d is %.8q, want %.8q", round, i, r.Data, want[i].Data)
			}
		}
		var mid Position
		for i := range 300 {
			rec := numbered(round*1000+i, 1000)
			pos := mustAppend(t, w, rec)
			mustSync(t, w)
			want = append(want, rec)
			if i == 200 {
				mid = pos
			}
		}
		if err := w.Release(mid); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	}
	if syncs < 1200 {
		t.Errorf("OnFsync was called %d times", syncs)
	}
	names, err := vfs.OS.List(dir)
	if err != nil || len(names) > 4 {
		t.Errorf("files %v, %v", names, err)
	}
}

// TestOtherGoroutines calls what may be called from other goroutines while the appender appends.
func TestOtherGoroutines(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.ReserveInline = false
	w, _ := mustOpen(t, mem, o)
	positions := make(chan Position, 1)
	var others sync.WaitGroup
	others.Go(func() {
		for pos := range positions {
			if err := w.Release(pos); err != nil {
				t.Error(err)
			}
			if w.Size() <= 0 {
				t.Error("size is not positive")
			}
		}
	})
	others.Go(func() {
		for range 500 {
			if err := w.TryReserve(); err != nil || w.SpaceLow() {
				t.Errorf("reserve: %v", err)
			}
		}
	})
	var last Position
	for i := range 500 {
		last = mustAppend(t, w, numbered(i, 900))
		mustSync(t, w)
		select {
		case positions <- last:
		default:
		}
	}
	close(positions)
	others.Wait()
	if err := w.Release(last); err != nil {
		t.Fatal(err)
	}
	if w.Size() > segmentBytesMin {
		t.Errorf("size is %d after all but one segment were released", w.Size())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, recs := mustOpen(t, mem, o)
	if n := len(recs); n == 0 || string(recs[n-1].Data) != string(numbered(499, 900).Data) {
		t.Errorf("%d records are left, without the last one", n)
	}
}

// TestSlowSpare: an append that needs the spare while the reserve goroutine is at it waits for it.
func TestSlowSpare(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.ReserveInline = false
	slow, blocked := make(chan struct{}), make(chan struct{}, 1)
	preallocations := 0
	fs := vfs.Hooked(mem, vfs.Hooks{Before: func(op vfs.Op) error {
		if op.Kind == vfs.OpPreallocate {
			if preallocations++; preallocations == 2 {
				blocked <- struct{}{}
				<-slow
			}
		}
		return nil
	}})
	w, _ := mustOpen(t, fs, o)
	<-blocked
	mustAppend(t, w, numbered(1, 8000)) // the current segment needs no spare
	appended := make(chan error)
	go func() {
		_, err := w.Append(numbered(2, 8000))
		appended <- err
	}()
	select {
	case err := <-appended:
		t.Fatalf("append did not wait: %v", err)
	default:
	}
	close(slow)
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendV(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	r := rand.New(rand.NewPCG(1, 2))
	var want []string
	for range 50 {
		var recs []RecordV
		for range r.IntN(4) {
			var pieces [][]byte
			for range r.IntN(4) {
				pieces = append(pieces, []byte(strings.Repeat("x", r.IntN(30))+"."))
			}
			var all strings.Builder
			for _, p := range pieces {
				all.Write(p)
			}
			want = append(want, all.String())
			recs = append(recs, RecordV{Type: 200, Data: pieces})
		}
		if _, err := w.AppendV(recs...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.AppendV(RecordV{}); !errors.Is(err, ErrReservedType) {
		t.Errorf("append of type 0: %v", err)
	}
	if _, err := w.Append(Record{}); !errors.Is(err, ErrReservedType) {
		t.Errorf("append of type 0: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, recs := mustOpen(t, mem, testOptions())
	if len(recs) != len(want) {
		t.Fatalf("%d records, want %d", len(recs), len(want))
	}
	for i, rec := range recs {
		if string(rec.Data) != want[i] || rec.Type != 200 {
			t.Errorf("record %d is %q, want %q", i, rec.Data, want[i])
		}
	}
}

// TestReplayError: what replay returns comes out of Open, and the log can be opened again.
func TestReplayError(t *testing.T) {
	log := buildDamageLog(t, false, false, true, false)
	boom := errors.New("boom")
	if _, err := Open(log.mem, "wal", testOptions(), func(Position, Record) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("open: %v", err)
	}
	if _, recs := mustOpen(t, log.mem, testOptions()); len(recs) != len(log.recs) {
		t.Errorf("%d records, want %d", len(recs), len(log.recs))
	}
}

// TestReplayedDataStays: records alias read buffers that are not used again.
func TestReplayedDataStays(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.SegmentBytes = 4 * readBytes
	w, _ := mustOpen(t, mem, o)
	for i := range 900 {
		mustAppend(t, w, numbered(i, 1000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var kept []Record
	if err := Scan(mem, "wal", func(_ Position, r Record) error {
		kept = append(kept, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, r := range kept {
		if want := numbered(i, 1000); string(r.Data) != string(want.Data) {
			t.Fatalf("record %d is %.8q", i, r.Data)
		}
	}
	if len(kept) != 900 {
		t.Errorf("%d records", len(kept))
	}
}

func TestOptions(t *testing.T) {
	_, err := Open(vfs.NewMem(), "wal", Options{SegmentBytes: 5000}, nil)
	if err == nil || !strings.Contains(err.Error(), "not between") || !strings.Contains(err.Error(), "not a multiple") {
		t.Errorf("open: %v", err)
	}
	var o Options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil || o.Salt() == o.Salt() {
		t.Errorf("defaults: %v", err)
	}
}

func TestScanOfNothing(t *testing.T) {
	mem := vfs.NewMem()
	if err := Scan(mem, "wal", nil); err == nil {
		t.Error("a directory that is not there was scanned")
	}
	if err := mem.MkdirAll("wal"); err != nil {
		t.Fatal(err)
	}
	if err := Scan(mem, "wal", nil); err != nil {
		t.Errorf("scan of an empty directory: %v", err)
	}
}

func TestPosition(t *testing.T) {
	ordered := []Position{{}, {1, 5}, {1, 6}, {2, 1}}
	for i, p := range ordered {
		for j, q := range ordered {
			if got := p.Compare(q); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("compare %s with %s: %d", p, q, got)
			}
		}
	}
}
