//go:build !linux && !darwin && !freebsd

package backend

import "os"

// diskFree is not known.
func diskFree(string) int64 { return -1 }

// unlinked is not known.
func unlinked(*os.File) bool { return false }
