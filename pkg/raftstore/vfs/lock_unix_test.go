//go:build unix && !solaris && !aix

package vfs

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnlockedInCopies: a lock ends with Close even while a copy of its descriptor is open, as in a child between fork and exec.
func TestUnlockedInCopies(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	lock, err := OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	dup, err := unix.Dup(int(lock.(fileLock).Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
