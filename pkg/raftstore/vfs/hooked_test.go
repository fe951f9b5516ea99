package vfs

import (
	"errors"
	"syscall"
	"testing"
)

func TestRecorder(t *testing.T) {
	var rec Recorder
	fsys := Hooked(NewMem(), Hooks{After: rec.After})
	must(t, fsys.MkdirAll("d"))
	f, err := fsys.Create("d/f")
	must(t, err)
	must(t, f.Preallocate(4096))
	write(t, f, 100, []byte("hello"))
	must(t, f.Sync())
	must(t, fsys.Rename("d/f", "d/g"))
	write(t, f, 0, []byte("new name"))
	must(t, fsys.SyncDir("d"))
	_, err = f.Size()
	must(t, err)
	must(t, f.Truncate(5))
	must(t, f.Close())
	must(t, fsys.Remove("d/g"))
	_ = fsys.Remove("d/g")
	want := `mkdir d
create d/f
preallocate d/f bytes=4096
write d/f offset=100 bytes=5
sync d/f
rename d/f -> d/g
write d/g offset=0 bytes=8
syncdir d
truncate d/g bytes=5
remove d/g
remove d/g: remove d/g: file does not exist
`
	if got := rec.Take(); got != want {
		t.Errorf("recorded:\n%swant:\n%s", got, want)
	}
	if got := rec.Take(); got != "" {
		t.Errorf("recorded twice: %s", got)
	}
}

func TestFailNth(t *testing.T) {
	isWrite := func(op Op) bool { return op.Kind == OpWrite }
	m := NewMem()
	fsys := Hooked(m, Hooks{Before: FailNth(2, syscall.EIO, isWrite)})
	f, err := fsys.Create("f")
	must(t, err)
	for i, want := range []error{nil, syscall.EIO, nil} {
		if _, err := f.WriteAt([]byte{byte('a' + i)}, int64(i)); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if got := string(contents(t, m, "f")); got != "a\x00c" {
		t.Errorf("contents: %q", got)
	}
}

func TestSpaceBudget(t *testing.T) {
	m := NewMem()
	budget := NewSpaceBudget(1000)
	fsys := Hooked(m, Hooks{Before: budget.Before})
	f, err := fsys.Create("f")
	must(t, err)
	write(t, f, 0, make([]byte, 200))
	n, err := f.WriteAt(make([]byte, 1000), 200)
	if n != 312 || !IsNoSpace(err) { // 800 bytes are left, to offset 1000, and the last sector before it ends at 512
		t.Errorf("write: %d, %v", n, err)
	}
	if n, err := f.WriteAt(make([]byte, 1), 0); n != 0 || !IsNoSpace(err) {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := f.Preallocate(2000); !IsNoSpace(err) {
		t.Errorf("preallocate: %v", err)
	}
	budget.Add(2000)
	must(t, f.Preallocate(2000))
}

// TestSlowDisk: a hook that blocks holds up the call it stands before, and no other.
func TestSlowDisk(t *testing.T) {
	slow := make(chan struct{})
	fsys := Hooked(NewMem(), Hooks{Before: func(op Op) error {
		if op.Kind == OpSync {
			<-slow
		}
		return nil
	}})
	f, err := fsys.Create("f")
	must(t, err)
	synced := make(chan error)
	go func() { synced <- f.Sync() }()
	write(t, f, 0, []byte("not held up"))
	select {
	case <-synced:
		t.Error("sync was not held up")
	default:
	}
	close(slow)
	must(t, <-synced)
}
