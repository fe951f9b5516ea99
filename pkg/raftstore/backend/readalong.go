package backend

import (
	"math"
	"os"
	"sync"
	"sync/atomic"
)

// readAlongBytes is how much is read at a time.
const readAlongBytes = 1 << 20

// readAlong reads a file that lacks the list of its free pages from its beginning to its end, until stop is called, if it is
// such a file: bbolt is about to look at every page of it by faults of the mapping, one small read of the disk each. It only brings pages
// into the page cache.
func readAlong(path string) (listless bool, stop func()) {
	f, err := os.Open(path)
	if err != nil {
		return false, func() {} // nor is it opened
	}
	w := &pageWalker{file: f}
	if !w.newest(math.MaxInt64) || w.freelist != noFreelist {
		f.Close()
		return false, func() {}
	}
	var stopped atomic.Bool
	var reading sync.WaitGroup
	reading.Go(func() {
		defer f.Close()
		b := make([]byte, readAlongBytes)
		for !stopped.Load() {
			if _, err := f.Read(b); err != nil { // the end, or bbolt meets it as well
				return
			}
		}
	})
	return true, func() {
		stopped.Store(true)
		reading.Wait()
	}
}
