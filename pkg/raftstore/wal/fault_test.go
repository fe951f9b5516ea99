package wal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// faultScript opens a log, writes through three segments with a release in between, and closes it. It stops at the first
// final error, tries again after ErrNoSpace once room is made by makeRoom, and gives what was acknowledged.
func faultScript(fs vfs.FS, makeRoom func()) (acked []Record, final error) {
	o := testOptions()
	o.Header = func() []Record { return []Record{{Type: headerType, Data: []byte("header")}} }
	replay := func(Position, Record) error { return nil }
	w, err := Open(fs, "wal", o, replay)
	if errors.Is(err, ErrNoSpace) || vfs.IsNoSpace(err) {
		makeRoom()
		w, err = Open(fs, "wal", o, replay)
	}
	if err != nil {
		return nil, err
	}
	var recs []Record
	for i := range 40 {
		rec := numbered(i, 900)
		pos, err := w.Append(rec)
		if errors.Is(err, ErrNoSpace) {
			if err := w.Sync(); err != nil {
				return acked, err
			}
			makeRoom()
			pos, err = w.Append(rec)
		}
		if err != nil {
			return acked, err
		}
		recs = append(recs, rec)
		if i%3 == 0 {
			if err := w.Sync(); err != nil {
				return acked, err
			}
			acked = slices.Clone(recs)
		}
		if i == 25 {
			if err := w.Release(pos); err != nil {
				return acked, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return acked, err
	}
	return recs, nil
}

// surviving reopens what a crash leaves and checks that all that was acknowledged is there, but for the segments that were
// released; seed says what survives of the rest.
func surviving(t *testing.T, mem *vfs.Mem, acked []Record, seed uint64) {
	t.Helper()
	after := mem.Crash(vfs.Seeded(seed))
	after.SetCapacity(0)
	_, recs := mustOpen(t, after, testOptions())
	recs = slices.DeleteFunc(recs, func(r Record) bool { return r.Type == headerType })
	if len(acked) == 0 {
		return
	}
	want := string(acked[len(acked)-1].Data)
	at := slices.IndexFunc(recs, func(r Record) bool { return string(r.Data) == want })
	if at < 0 {
		t.Fatalf("record %.8q was acknowledged and is not there", want)
	}
	for i := range at {
		if a := acked[len(acked)-1-at+i]; string(a.Data) != string(recs[i].Data) {
			t.Fatalf("record %.8q, want %.8q", recs[i].Data, a.Data)
		}
	}
}

// TestFailEveryCall fails each call that changes something with an I/O error, once: the error comes out of the call that
// met it, and nothing acknowledged is lost.
func TestFailEveryCall(t *testing.T) {
	changes := func(op vfs.Op) bool { return op.Kind.Changes() }
	for n := int64(1); ; n++ {
		mem := vfs.NewMem()
		var hit, previous string
		failing := vfs.FailNth(n, syscall.EIO, changes)
		fs := vfs.Hooked(mem, vfs.Hooks{Before: func(op vfs.Op) error {
			err := failing(op)
			switch {
			case err != nil:
				hit = op.String()
				if op.Kind == vfs.OpSyncDir {
					hit += " after " + previous
				}
			case changes(op):
				previous = op.String()
			}
			return err
		}})
		acked, err := faultScript(fs, func() {})
		if hit == "" {
			if n < 30 || err != nil {
				t.Fatalf("the script ended with %v after %d calls", err, n)
			}
			return
		}
		// A spare that cannot be made is tried again later, without an error.
		forgiven := strings.Contains(hit, spareName) && !strings.HasPrefix(hit, "write") && err == nil
		if !forgiven && !errors.Is(err, syscall.EIO) {
			t.Fatalf("call %d, %s: the script ended with %v", n, hit, err)
		}
		t.Run(fmt.Sprintf("%d %s", n, hit), func(t *testing.T) {
			for seed := range uint64(5) {
				surviving(t, mem, acked, seed)
			}
		})
	}
}

// TestNoSpaceAtEveryCall fills the disk at each call that takes space, a write after a part of it. Whatever call met it
// gives ErrNoSpace or goes on; once there is room the script runs to its end, and all of it is there.
func TestNoSpaceAtEveryCall(t *testing.T) {
	takesSpace := func(op vfs.Op) bool {
		return op.Kind == vfs.OpWrite || op.Kind == vfs.OpPreallocate || op.Kind == vfs.OpCreate ||
			op.Kind == vfs.OpRename || op.Kind == vfs.OpMkdirAll
	}
	for n := int64(1); ; n++ {
		mem := vfs.NewMem()
		var hit string
		full := false
		var calls int64
		fs := vfs.Hooked(mem, vfs.Hooks{Before: func(op vfs.Op) error {
			if !takesSpace(op) {
				return nil
			}
			calls++
			switch {
			case calls == n:
				hit, full = op.String(), true
				if op.Kind == vfs.OpWrite {
					return &vfs.ShortWrite{Bytes: op.Bytes / 2, Err: syscall.ENOSPC}
				}
				return syscall.ENOSPC
			case full && op.Kind != vfs.OpWrite:
				return syscall.ENOSPC
			}
			return nil
		}})
		acked, err := faultScript(fs, func() { full = false })
		if hit == "" {
			if n < 30 {
				t.Fatalf("the script ended after %d calls", n)
			}
			return
		}
		t.Run(fmt.Sprintf("%d %s", n, hit), func(t *testing.T) {
			if err != nil && !errors.Is(err, ErrNoSpace) && !vfs.IsNoSpace(err) {
				t.Fatalf("the script ended with %v", err)
			}
			if err == nil && len(acked) != 40 {
				t.Fatalf("%d records were acknowledged", len(acked))
			}
			for seed := range uint64(5) {
				surviving(t, mem, acked, seed)
			}
		})
	}
}

// TestNoSpaceChangesNothing: after ErrNoSpace the log is byte for byte what it was, and so is what the next append does.
func TestNoSpaceChangesNothing(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	mem.SetCapacity(mem.Used())
	n := 0
	for ; ; n++ {
		before := mem.Clone()
		size, tail, enc := w.Size(), w.tail, w.enc
		_, err := w.Append(numbered(n, 900))
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNoSpace) || !w.SpaceLow() {
			t.Fatalf("append: %v, space low %v", err, w.SpaceLow())
		}
		if w.Size() != size || w.tail != tail || w.enc.number != enc.number || w.enc.chain != enc.chain {
			t.Fatal("the log has changed")
		}
		names, _ := mem.List("wal")
		for _, name := range names {
			if string(readAll(t, mem, "wal/"+name)) != string(readAll(t, before, "wal/"+name)) {
				t.Fatalf("%s has changed", name)
			}
		}
		break
	}
	mem.SetCapacity(0)
	if err := w.TryReserve(); err != nil || w.SpaceLow() {
		t.Fatalf("reserve: %v, space low %v", err, w.SpaceLow())
	}
	mustAppend(t, w, numbered(n, 900))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, recs := mustOpen(t, mem, testOptions()); len(recs) != n+1 {
		t.Errorf("%d records, want %d", len(recs), n+1)
	}
}

// TestUnreadable: a segment that cannot be read is an error, not the end of the log.
func TestUnreadable(t *testing.T) {
	log := buildDamageLog(t, false, false, true, false)
	reads := 0
	count := vfs.Hooks{Before: func(op vfs.Op) error {
		if op.Kind == vfs.OpRead {
			reads++
		}
		return nil
	}}
	_, replay := collect()
	if err := Scan(vfs.Hooked(log.mem, count), "wal", replay); err != nil {
		t.Fatal(err)
	}
	for n := range reads {
		fail := vfs.FailNth(int64(n)+1, syscall.EIO, func(op vfs.Op) bool { return op.Kind == vfs.OpRead })
		_, err := Open(vfs.Hooked(log.mem.Clone(), vfs.Hooks{Before: fail}), "wal", testOptions(), replay)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("read %d fails: %v", n, err)
		}
	}
}

// TestFailedFsyncIsNotBelieved: a process ends after a failed fsync, the next one sees what was written in the page cache,
// and the kernel would say that it is durable. What Open has given to replay is there after a crash all the same.
func TestFailedFsyncIsNotBelieved(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	mustAppend(t, w, numbered(1, 700))
	mustSync(t, w)
	mustAppend(t, w, numbered(2, 700))
	mustAppend(t, w, numbered(3, 700))
	mem.ForgetDirty(segmentName("wal", 1))
	_, recs := mustOpen(t, mem, testOptions())
	if len(recs) != 3 {
		t.Fatalf("%d records", len(recs))
	}
	if _, recs = mustOpen(t, mem.Crash(vfs.LoseAll), testOptions()); len(recs) != 3 {
		t.Errorf("%d records are left of the 3 that were replayed", len(recs))
	}
}
