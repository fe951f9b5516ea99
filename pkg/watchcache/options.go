package watchcache

import (
	"errors"
	"fmt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Options are the bounds of a Hub. The zero value means the defaults.
type Options struct {
	// WindowEvents is how many events the log keeps in memory at most (default
	// 100,000). More lets slower watchers stay on the cheap path.
	WindowEvents int
	// WindowBytes is how many bytes the events in the log may take (default
	// 64 MiB), the previous versions and shared encodings they hold included.
	WindowBytes int64
	// BatchBytes is the size from which a batch of several revisions is not grown
	// further (default 1 MiB). A single revision is never split.
	BatchBytes int
}

// EnsureDefaults fills what is zero.
func (o *Options) EnsureDefaults() {
	if o.WindowEvents == 0 {
		o.WindowEvents = windowEventsDefault
	}
	if o.WindowBytes == 0 {
		o.WindowBytes = windowBytesDefault
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = batchBytesMax
	}
}

// Validate reports everything that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	if o.WindowEvents < 1 {
		errs = append(errs, fmt.Errorf("window events %d is below 1", o.WindowEvents))
	}
	if o.WindowBytes < 1 {
		errs = append(errs, fmt.Errorf("window bytes %d is below 1", o.WindowBytes))
	}
	if o.BatchBytes < 1 {
		errs = append(errs, fmt.Errorf("batch bytes %d is below 1", o.BatchBytes))
	}
	return errors.Join(errs...)
}

// Env is what a Hub needs of its host.
type Env struct {
	// View returns the latest published state. It is called from any goroutine.
	View func() *mvcc.View
}
