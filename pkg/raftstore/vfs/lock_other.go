//go:build !unix || solaris || aix

package vfs

import (
	"errors"
	"fmt"
	"os"
)

// lockFile refuses: a data directory that two processes could open at once is worse than none.
func lockFile(f *os.File) error {
	return fmt.Errorf("lock %s: %w", f.Name(), errors.ErrUnsupported)
}

func unlockFile(*os.File) error { return nil }
