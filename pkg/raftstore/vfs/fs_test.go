package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"reflect"
	"syscall"
	"testing"
)

// TestBoth runs the same calls on the real file system and its twin.
func TestBoth(t *testing.T) {
	t.Run("os", func(t *testing.T) { testFS(t, OS, t.TempDir()) })
	t.Run("mem", func(t *testing.T) { testFS(t, NewMem(), "/") })
	t.Run("hooked", func(t *testing.T) { testFS(t, Hooked(NewMem(), Hooks{}), "/") })
}

func testFS(t *testing.T, fsys FS, root string) {
	dir := path.Join(root, "a", "b")
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("mkdir", fsys.MkdirAll(dir), nil)
	check("mkdir again", fsys.MkdirAll(dir), nil)
	testMissing(check, fsys, root, path.Join(dir, "f"))
	testFile(t, check, fsys, path.Join(dir, "f"))
	testDirect(t, check, fsys, path.Join(dir, "f"))
	testNames(t, check, fsys, dir)

	lock, err := fsys.Lock(path.Join(dir, "lock"))
	check("lock", err, nil)
	_, err = fsys.Lock(path.Join(dir, "lock"))
	check("lock again", err, ErrLocked)
	check("unlock", lock.Close(), nil)
	lock, err = fsys.Lock(path.Join(dir, "lock"))
	check("lock after unlock", err, nil)
	check("unlock", lock.Close(), nil)
}

type checker = func(what string, err, want error)

func testMissing(check checker, fsys FS, root, name string) {
	_, err := fsys.Open(name)
	check("open", err, fs.ErrNotExist)
	_, err = fsys.OpenReadOnly(name)
	check("open read-only", err, fs.ErrNotExist)
	_, err = fsys.Stat(name)
	check("stat", err, fs.ErrNotExist)
	check("remove", fsys.Remove(name), fs.ErrNotExist)
	check("rename", fsys.Rename(name, name+"2"), fs.ErrNotExist)
	_, err = fsys.List(name)
	check("list", err, fs.ErrNotExist)
	check("sync directory", fsys.SyncDir(name), fs.ErrNotExist)
	_, err = fsys.Create(path.Join(root, "none", "f"))
	check("create", err, fs.ErrNotExist)
}

func testFile(t *testing.T, check checker, fsys FS, name string) {
	f, err := fsys.Create(name)
	check("create", err, nil)
	check("preallocate", f.Preallocate(5000), nil)
	check("preallocate less", f.Preallocate(100), nil)
	n, err := f.WriteAt([]byte("hello"), 4998)
	if n != 5 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if size, err := f.Size(); size != 5003 || err != nil {
		t.Errorf("size: %d, %v", size, err)
	}
	check("sync", f.Sync(), nil)
	check("truncate", f.Truncate(5002), nil)
	b := make([]byte, 8)
	n, err = f.ReadAt(b, 4996)
	if n != 6 || err != io.EOF || string(b[:n]) != "\x00\x00hell" {
		t.Errorf("read: %q, %v", b[:n], err)
	}
	if n, err = f.ReadAt(b, 6000); n != 0 || err != io.EOF {
		t.Errorf("read behind the end: %d, %v", n, err)
	}
	check("close", f.Close(), nil)
	check("close again", f.Close(), fs.ErrClosed)

	ro, err := fsys.OpenReadOnly(name)
	check("open read-only", err, nil)
	if _, err := ro.WriteAt(b, 0); err == nil {
		t.Error("a read-only file was written")
	}
	check("close", ro.Close(), nil)
}

// testDirect writes a block past the page cache into a file of which a reader has seen the old one, and leaves its size.
func testDirect(t *testing.T, check checker, fsys FS, name string) {
	_, err := fsys.OpenDirect(name + "2")
	check("open direct", err, fs.ErrNotExist)
	reader, err := fsys.Open(name)
	check("open", err, nil)
	seen := make([]byte, 4)
	if _, err := reader.ReadAt(seen, 2); err != nil || string(seen) != "\x00\x00\x00\x00" {
		t.Errorf("read: %q, %v", seen, err)
	}
	f, err := fsys.OpenDirect(name)
	check("open direct", err, nil)
	block := append(AlignedBuffer(10), bytes.Repeat([]byte("abcd"), DirectBytes/4)...)
	if n, err := f.WriteAt(block, 0); n != DirectBytes || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	check("sync", f.Sync(), nil)
	if _, err := reader.ReadAt(seen, 2); err != nil || string(seen) != "cdab" {
		t.Errorf("read: %q, %v", seen, err)
	}
	clear(block)
	if n, err := f.ReadAt(block, 0); n != DirectBytes || err != nil || string(block[:4]) != "abcd" {
		t.Errorf("read: %d, %v", n, err)
	}
	for _, c := range []struct {
		p   []byte
		off int64
	}{{block, 8}, {block[:8], 0}, {append(AlignedBuffer(2*DirectBytes), make([]byte, DirectBytes+8)...)[8:], 0}} {
		_, err := f.WriteAt(c.p, c.off)
		check("write what is not aligned", err, syscall.EINVAL)
		_, err = f.ReadAt(c.p, c.off)
		check("read what is not aligned", err, syscall.EINVAL)
	}
	check("close", f.Close(), nil)
	check("close", reader.Close(), nil)
}

// testNames begins with the file f in dir.
func testNames(t *testing.T, check checker, fsys FS, dir string) {
	check("rename", fsys.Rename(path.Join(dir, "f"), path.Join(dir, "e")), nil)
	g, err := fsys.Create(path.Join(dir, "g"))
	check("create", err, nil)
	check("close", g.Close(), nil)
	check("sync directory", fsys.SyncDir(dir), nil)
	names, err := fsys.List(dir)
	if want := []string{"e", "g"}; err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("list: %v, %v", names, err)
	}
	info, err := fsys.Stat(path.Join(dir, "e"))
	if err != nil || info != (Info{Size: 5002}) {
		t.Errorf("stat: %+v, %v", info, err)
	}
	if info, err = fsys.Stat(dir); err != nil || !info.IsDir {
		t.Errorf("stat: %+v, %v", info, err)
	}
	if err := fsys.Remove(dir); err == nil {
		t.Error("a directory with files was removed")
	}
	if err := fsys.MkdirAll(path.Join(dir, "e")); err == nil {
		t.Error("a directory was made where a file is")
	}
}

// TestMkdirAllSyncs: names are durable from the top down, that of a directory which was found included.
func TestMkdirAllSyncs(t *testing.T) {
	root := t.TempDir()
	var failure error
	synced := func(dir string) (names []string) {
		t.Helper()
		if err := mkdirAll(dir, func(parent string) error { names = append(names, parent); return failure }); err != nil {
			t.Fatal(err)
		}
		return names
	}
	a, b := path.Join(root, "a"), path.Join(root, "a", "b")
	if got, want := synced(b), []string{path.Dir(root), root, a}; !reflect.DeepEqual(got, want) {
		t.Errorf("two new directories: %v, want %v", got, want)
	}
	if got, want := synced(b), []string{a}; !reflect.DeepEqual(got, want) {
		t.Errorf("a directory that is there: %v, want %v", got, want)
	}
	failure = fs.ErrPermission // the parent is somebody else's
	synced(b)
	if err := mkdirAll(b, func(string) error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Errorf("where the sync fails: %v", err)
	}
	if err := mkdirAll(path.Join(b, "c"), func(string) error { return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a new directory that cannot be synced: %v", err)
	}
}
