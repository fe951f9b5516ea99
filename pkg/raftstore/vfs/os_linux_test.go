package vfs

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirectRefused: a file system may take O_DIRECT and then not the write. Here it is taken back as it would be then, and the
// file goes on through the page cache.
func TestDirectRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := OS.Create(name)
	must(t, err)
	must(t, f.Preallocate(2*DirectBytes))
	must(t, f.Close())
	f, err = OS.OpenDirect(name)
	must(t, err)
	block := append(AlignedBuffer(DirectBytes), bytes.Repeat([]byte{1}, DirectBytes)...)
	write(t, f, 0, block)
	direct := f.(directFile)
	must(t, setBuffered(direct.File))
	must(t, ignoringEINTR(direct.File, "fcntl", func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if flags&unix.O_DIRECT != 0 {
			t.Error("O_DIRECT is still set")
		}
		return err
	}))
	write(t, f, DirectBytes, block)
	must(t, f.Sync())
	got := AlignedBuffer(2 * DirectBytes)[:2*DirectBytes]
	if n, err := f.ReadAt(got, 0); n != len(got) || err != nil || bytes.Count(got, []byte{1}) != len(got) {
		t.Errorf("read: %d, %v", n, err)
	}
	must(t, f.Close())
}
