package compact

import (
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// keepRevisions is the schedule of revision mode.
type keepRevisions struct {
	keep mvcc.Revision
	last mvcc.Revision // compacted
}

func (k *keepRevisions) tick() time.Duration { return revisionTick }

func (k *keepRevisions) note(mvcc.Revision) {}

func (k *keepRevisions) due(_ time.Time, current mvcc.Revision) (mvcc.Revision, bool) {
	rev := current - k.keep
	return rev, rev > 0 && rev != k.last
}

func (k *keepRevisions) done(_ time.Time, rev mvcc.Revision) { k.last = rev }
