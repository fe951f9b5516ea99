package mvcc

import (
	"bytes"
	"cmp"
	"fmt"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc/cowtree"
)

type (
	keyTree    = cowtree.Tree[[]byte, *Version]
	leaseTree  = cowtree.Tree[LeaseID, *Lease]
	attachTree = cowtree.Tree[attachKey, *Version]
)

// Options of a State. The zero value is the default.
type Options struct {
	// LeaseTTLMin is the shortest time to live of a lease, in seconds; shorter
	// grants are raised to it. Default 2, which is etcd's with its default
	// election timeout. All members must agree on it, so it cannot follow from
	// settings.
	LeaseTTLMin int64
	// Rows is the file that checkpoints are written to, or nil: no version
	// leaves memory then.
	Rows Rows
}

// EnsureDefaults fills in what was left at zero.
func (o *Options) EnsureDefaults() {
	if o.LeaseTTLMin == 0 {
		o.LeaseTTLMin = leaseTTLMinDefault
	}
}

// Validate reports what is wrong with the options.
func (o *Options) Validate() error {
	if o.LeaseTTLMin < 1 || o.LeaseTTLMin > leaseTTLMax {
		return fmt.Errorf("lease ttl min %d is not within [1, %d]", o.LeaseTTLMin, int64(leaseTTLMax))
	}
	return nil
}

// State is the state machine: what the log means when it is applied from the
// start. It belongs to one goroutine; readers get a View.
type State struct {
	opt Options

	index, term uint64
	revision    Revision
	compacted   Revision // NeverCompacted, or the highest compacted revision
	latest      *latest  // shared with all views
	hash        uint64   // rolling, see hash.go

	keys     *keyTree    // the newest version of each key, tombstones too
	leases   *leaseTree  //
	attached *attachTree // the live versions with a lease, by lease and key
	history  history
	meta     meta
	auth     *auth.State
	resident residency
	size     int64 // bytes of all rows that are not removed yet
	liveSize int64 // bytes of the rows of live keys

	changes []Event // of the entry that is being applied, in sub order
	path    []bool  // of the txn that is being applied, see choose
	lost    error   // a *ReadError: nothing can be applied any more
	compact compaction
	pending pending

	digest  xxhash.Digest // for fold
	foldBuf []byte
	folded  *auth.State // the one that hash knows of
}

// latest is what views need to know of the states after them.
type latest struct {
	compacted atomic.Int64
	rows      Rows // never changes; nil: there are none
}

func (l *latest) begin() (RowReader, error) { return l.rows.Begin() }

// meta is the small state beside keys and leases. Its parts are replaced, never
// changed, as views hold them.
type meta struct {
	alarms         []*pb.AlarmMember // by type, then member
	clusterVersion string
	downgrade      Downgrade
}

// Downgrade is the downgrade that the cluster has been told to allow.
type Downgrade struct {
	Enabled bool
	Target  string
}

// New answers an empty state at revision 1. The options must be valid.
func New(o Options) *State {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		panic(fmt.Sprintf("mvcc: %v", err))
	}
	users := auth.New()
	s := &State{
		opt:       o,
		revision:  1,
		compacted: NeverCompacted,
		latest:    &latest{rows: o.Rows},
		keys:      cowtree.New(bytes.Compare, (*Version).Key, (*Version).weight),
		leases:    cowtree.New(cmp.Compare[LeaseID], (*Lease).id, (*Lease).weight),
		attached:  cowtree.New(attachKey.compare, attachKeyOf, (*Version).weight),
		auth:      users,
		folded:    users,
	}
	s.pending.auth = users
	s.latest.compacted.Store(int64(NeverCompacted))
	s.compact.finished = NeverCompacted
	s.pending.leases = make(map[LeaseID]struct{})
	return s
}

// Index is the index of the last applied entry.
func (s *State) Index() uint64 { return s.index }

// Term is the term of the last applied entry.
func (s *State) Term() uint64 { return s.term }

// Hash is the rolling hash of all that was applied.
func (s *State) Hash() uint64 { return s.hash }

// Revision is the current main revision.
func (s *State) Revision() Revision { return s.revision }

// AuthRevision is the current auth revision.
func (s *State) AuthRevision() uint64 { return s.auth.Revision() }

// Overtaken tells the views that the file is about to hold a later state in the
// place of this one, compacted at a revision: what that has removed is gone.
func (s *State) Overtaken(by *State) {
	if by.compacted > s.compacted {
		s.latest.compacted.Store(int64(by.compacted))
	}
}

// Succeed takes the place of the state before, of an earlier index and with the
// same rows: the views of that one learn of compactions from this one now. It
// comes before the first Publish.
func (s *State) Succeed(before *State) {
	before.Overtaken(s)
	s.latest = before.latest
}

// Publish freezes what was applied so far. O(1): later applies copy what they
// change.
func (s *State) Publish() *View {
	return &View{
		reader: reader{
			keys:      s.keys.Snapshot(),
			revision:  s.revision,
			compacted: s.compacted,
			latest:    s.latest,
		},
		index:    s.index,
		term:     s.term,
		hash:     s.hash,
		leases:   s.leases.Snapshot(),
		attached: s.attached.Snapshot(),
		history:  s.history.view(),
		meta:     s.meta,
		auth:     s.auth,
		size:     s.size,
		liveSize: s.liveSize,
		pending:  s.pending.rows(),

		residency: s.resident.Residency,
	}
}
