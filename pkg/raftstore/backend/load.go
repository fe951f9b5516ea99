package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Content is what the file holds beside rows.
type Content struct {
	Index, Term                       uint64 // 0: nothing was written yet
	Hash                              uint64
	Trusted                           bool // the file has sums that belong to it, and Hash is right
	ConfState                         []byte
	CompactScheduled, CompactFinished mvcc.Revision // -1: never
	StorageVersion                    string
	Leases                            []mvcc.Lease
	Alarms                            []*pb.AlarmMember
	ClusterVersion                    string
	Downgrade                         []byte
	Members                           map[string][]byte
	MembersRemoved                    []string
	Auth                              *auth.State
	Rows                              int // with those ahead
}

// Applied is the index, and the term, that the file holds the state of. A file that is damaged may have them wrong: Load says so.
func (db *DB) Applied() (index, term uint64, err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return 0, 0, fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	meta := tx.Bucket(bucketMeta)
	if meta == nil || meta.Get(metaIndex) == nil {
		return 0, 0, nil
	}
	index, err1 := decodeUint64(meta.Get(metaIndex))
	if index == 0 && err1 == nil {
		return 0, 0, nil // no checkpoint has come to its end
	}
	term, err2 := decodeUint64(meta.Get(metaTerm))
	return index, term, errors.Join(err1, err2)
}

// Load reads everything and checks it against the sums. build is given the content and the rows: parts of about the same size, which it
// may read at the same time, each on one goroutine, and which one behind the other are in the order of revisions. More than Readers at
// the same time are of no use. It has to read each to
// its end or to an error. The bytes of a row are valid as mvcc.Loader needs them. The error is a *CorruptError if the file does not hold
// what was written.
func (db *DB) Load(build func(Content, []iter.Seq2[mvcc.Row, error]) error) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	l := &loader{db: db, handle: tx.DB(), tx: tx, at: -1}
	if err := l.walkBranches(); err != nil {
		return err
	}
	c, err := l.content()
	if err != nil {
		return l.corrupt(err)
	}
	parts := l.split(c.Rows)
	rows := make([]iter.Seq2[mvcc.Row, error], len(parts))
	for i, p := range parts {
		rows[i] = p.rows
	}
	if err := l.blame(parts, build(c, rows)); err != nil {
		return err
	}
	if err := l.checkPages(parts); err != nil {
		return err
	}
	forget(l.handle.Info().Data, db.Size())
	return nil
}

// rowBytesMin is less than any row of bucket key takes.
const rowBytesMin = elementBytes + 17

// loader is one Load under way.
type loader struct {
	db      *DB
	handle  *bbolt.DB
	tx      *Tx
	pages   *pageWalker // has been to all but the leaves of bucket key
	trusted bool
	above   mvcc.Revision // rows above it are ahead of the state
	groups  []groupRows   // in order; none if the file is not trusted
	at      int64         // the place of the row at hand
}

// walkBranches checks all pages but the leaves of bucket key, which are checked as they are read.
func (l *loader) walkBranches() error {
	info, err := l.tx.file.raw.Stat()
	if err != nil {
		return fmt.Errorf("size of the database: %w", err)
	}
	w := &pageWalker{file: l.tx.file.raw, offset: -1, shallow: true}
	ok := w.meta(info.Size())
	if ok && w.txid != uint64(l.tx.ID()) {
		return nil // somebody writes: what is used is not what will be read
	}
	if !ok || !w.page(w.root, 0) || !w.free() {
		return &CorruptError{File: l.db.path, Offset: w.offset, Reason: w.reason}
	}
	l.pages = w
	return nil
}

// checkPages looks for pages that are neither free nor were read, if all were read.
func (l *loader) checkPages(parts []*part) error {
	if l.pages == nil || slices.ContainsFunc(parts, func(p *part) bool { return !p.done }) {
		return nil
	}
	if !l.pages.complete() {
		return &CorruptError{File: l.db.path, Offset: l.pages.offset, Reason: l.pages.reason}
	}
	return nil
}

// groupRows is how many rows a group has by its sum.
type groupRows struct{ group, rows uint64 }

// corrupt says where err was found: at the row at hand, unless the pages themselves are wrong before it.
func (l *loader) corrupt(err error) error { return l.corruptAt(l.at, err) }

func (l *loader) corruptAt(offset int64, err error) error {
	var c *CorruptError
	if errors.As(err, &c) {
		return err
	}
	if at, reason := locate(l.db.path); reason != "" {
		return &CorruptError{File: l.db.path, Offset: at, Reason: reason}
	}
	return &CorruptError{File: l.db.path, Offset: offset, Reason: err.Error()}
}

func (l *loader) content() (Content, error) {
	f, valid, err := readFacts(l.tx.Tx)
	if err != nil {
		return Content{}, fmt.Errorf("facts: %w", err)
	}
	var users authRows
	l.trusted, l.above = valid, math.MaxInt64
	if valid && f.ahead {
		l.above = f.above
	}
	c := Content{Hash: f.hash, Trusted: valid, CompactScheduled: -1, CompactFinished: -1, Members: make(map[string][]byte)}
	var small sum
	for _, b := range buckets {
		if bytes.Equal(b, bucketKey) || bytes.Equal(b, bucketShim) || l.tx.Bucket(b) == nil {
			continue
		}
		err := l.tx.Bucket(b).ForEach(func(k, v []byte) error {
			l.at = offset(l.handle, k)
			small.add(k, v)
			if err := errors.Join(c.take(b, k, v), users.take(b, k, v)); err != nil {
				return fmt.Errorf("bucket %s, key %q: %w", b, k, err)
			}
			return nil
		})
		if err != nil {
			return Content{}, err
		}
	}
	if valid && small != f.small {
		return Content{}, errors.New("the rows of the small buckets do not have the checksum they were written with")
	}
	if c.Auth, err = auth.Load(users.enabled, users.revision, users.users, users.roles); err != nil {
		return Content{}, err
	}
	if b := l.tx.Bucket(bucketShim); b != nil && valid {
		err = b.ForEach(func(k, v []byte) error {
			l.at = offset(l.handle, k)
			if len(k) == 9 && k[0] == 'g' {
				s, err := decodeSum(v)
				if err == nil && s.count > uint64(l.db.Size()/rowBytesMin) {
					err = fmt.Errorf("a group of %d rows does not fit into the file", s.count)
				}
				c.Rows += int(s.count)
				l.groups = append(l.groups, groupRows{binary.BigEndian.Uint64(k[1:]), s.count})
				return err
			}
			return nil
		})
	}
	l.at = -1
	return c, err
}

// take notes a row of one of the small buckets.
func (c *Content) take(bucket, k, v []byte) (err error) {
	switch string(bucket) {
	case string(bucketMeta):
		switch string(k) {
		case string(metaIndex):
			c.Index, err = decodeUint64(v)
		case string(metaTerm):
			c.Term, err = decodeUint64(v)
		case string(metaConfState):
			c.ConfState = bytes.Clone(v)
		case string(metaScheduledCompact):
			c.CompactScheduled, err = decodeRevision(v)
		case string(metaFinishedCompact):
			c.CompactFinished, err = decodeRevision(v)
		case string(metaStorageVersion):
			c.StorageVersion = string(v)
		}
	case string(bucketLease):
		l, err := decodeLease(v)
		if err == nil && !bytes.Equal(k, encodeLeaseID(l.ID)) {
			err = fmt.Errorf("holds lease %x", int64(l.ID))
		}
		c.Leases = append(c.Leases, l)
		return err
	case string(bucketAlarm):
		a := &pb.AlarmMember{}
		err = proto.Unmarshal(k, a)
		c.Alarms = append(c.Alarms, a)
	case string(bucketCluster):
		switch string(k) {
		case string(clusterVersion):
			c.ClusterVersion = string(v)
		case string(clusterDowngrade):
			c.Downgrade = bytes.Clone(v)
		}
	case string(bucketMembers):
		c.Members[string(k)] = bytes.Clone(v)
	case string(bucketMembersRemoved):
		c.MembersRemoved = append(c.MembersRemoved, string(k))
	}
	return err
}
