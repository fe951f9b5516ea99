//go:build !linux

package backend

import "os"

// willNeed does nothing where the kernel is not told.
func willNeed(*os.File, int64, int64) {}

// readsAtRandom does nothing where the kernel is not told.
func readsAtRandom(*os.File) {}
