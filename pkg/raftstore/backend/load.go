package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

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
	Rows                              int
}

// Load reads everything and checks it against the sums. build is given the content and the rows in the order of revisions; the
// bytes of a row are valid until build returns. The error is a *CorruptError if the file does not hold what was written.
func (db *DB) Load(build func(Content, iter.Seq2[mvcc.Row, error]) error) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("begin to read the database: %w", err)
	}
	defer tx.Rollback()
	l := &loader{db: db, handle: db.handle.Load(), tx: tx, at: -1}
	c, err := l.content()
	if err != nil {
		return l.corrupt(err)
	}
	err = build(c, l.rows())
	if l.failed != nil {
		return l.failed
	}
	if err != nil {
		return l.corrupt(err)
	}
	forget(l.handle.Info().Data, db.Size())
	return nil
}

// rowsPerBatch and batchesAhead bound how far the rows are read ahead.
const (
	rowsPerBatch = 128
	batchesAhead = 8
)

// rowBytesMin is less than any row of bucket key takes.
const rowBytesMin = elementBytes + 17

// loader is one Load under way.
type loader struct {
	db      *DB
	handle  *bbolt.DB
	tx      *bbolt.Tx
	trusted bool
	at      int64 // the place of the row at hand
	failed  error // what rows found
}

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
	f, valid, err := readFacts(l.tx)
	if err != nil {
		return Content{}, fmt.Errorf("facts: %w", err)
	}
	l.trusted = valid
	c := Content{Hash: f.hash, Trusted: valid, CompactScheduled: -1, CompactFinished: -1, Members: make(map[string][]byte)}
	var small sum
	for _, b := range buckets {
		if bytes.Equal(b, bucketKey) || bytes.Equal(b, bucketShim) || l.tx.Bucket(b) == nil {
			continue
		}
		err := l.tx.Bucket(b).ForEach(func(k, v []byte) error {
			l.at = offset(l.handle, k)
			small.add(k, v)
			if err := c.take(b, k, v); err != nil {
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
	if b := l.tx.Bucket(bucketShim); b != nil && valid {
		err = b.ForEach(func(k, v []byte) error {
			l.at = offset(l.handle, k)
			if len(k) == 9 && k[0] == 'g' {
				s, err := decodeSum(v)
				if err == nil && s.count > uint64(l.db.Size()/rowBytesMin) {
					err = fmt.Errorf("a group of %d rows does not fit into the file", s.count)
				}
				c.Rows += int(s.count)
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

// rows yields the rows of bucket key. Another goroutine, which has ended when rows has, reads ahead and compares the sums.
func (l *loader) rows() iter.Seq2[mvcc.Row, error] {
	return func(yield func(mvcc.Row, error) bool) {
		s := &scan{loader: l, batches: make(chan []mvcc.Row, batchesAhead), stop: make(chan struct{})}
		var reading sync.WaitGroup
		reading.Go(func() {
			defer close(s.batches)
			s.err = s.run()
		})
		defer reading.Wait()
		defer close(s.stop)
		for batch := range s.batches {
			for _, row := range batch {
				l.at = offset(l.handle, row.Key)
				if !yield(row, nil) {
					return
				}
			}
		}
		l.at = -1
		if s.err != nil {
			l.failed = s.err
			yield(mvcc.Row{}, s.err)
		}
	}
}

// scan reads the rows of bucket key and compares each group with its sum once it is complete.
type scan struct {
	*loader
	batches chan []mvcc.Row // complete once closed, unless err is set
	stop    chan struct{}
	err     error // a *CorruptError
	batch   []mvcc.Row
}

// send hands out the rows so far; false: nobody wants more.
func (s *scan) send() bool {
	select {
	case s.batches <- s.batch:
		s.batch = make([]mvcc.Row, 0, rowsPerBatch)
		return true
	case <-s.stop:
		return false
	}
}

func (s *scan) run() (err error) {
	defer s.db.guard(debug.SetPanicOnFault(true), &err)
	bucket := s.tx.Bucket(bucketKey)
	if bucket == nil {
		return nil
	}
	var group uint64
	var have sum
	var start int64
	var seen []uint64
	cursor := bucket.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		if len(k) < 17 {
			return s.corruptAt(offset(s.handle, k), fmt.Errorf("row key of %d bytes", len(k)))
		}
		if g := groupOf(k); have.count == 0 || g != group {
			if err := s.checkGroup(group, have, start); err != nil {
				return err
			}
			group, have, start = g, sum{}, offset(s.handle, k)
			seen = append(seen, g)
		}
		have.add(k, v)
		if s.batch = append(s.batch, mvcc.Row{Key: k, Value: v}); len(s.batch) >= rowsPerBatch && !s.send() {
			return nil
		}
	}
	if err := s.checkGroup(group, have, start); err != nil {
		return err
	}
	s.send()
	return s.checkMissing(seen)
}

// checkGroup is nil if the rows of a group are those that were written.
func (s *scan) checkGroup(group uint64, have sum, start int64) error {
	if !s.trusted || have.count == 0 {
		return nil
	}
	var want sum
	if v := s.tx.Bucket(bucketShim).Get(groupKey(group)); v != nil {
		var err error
		if want, err = decodeSum(v); err != nil {
			return s.corruptAt(start, err)
		}
	}
	if have != want {
		return s.corruptAt(start, fmt.Errorf("the %d rows of revisions %d to %d do not have the checksum they were written with (%d rows)",
			have.count, group*groupRevisions, (group+1)*groupRevisions-1, want.count))
	}
	return nil
}

// checkMissing looks for groups that have a sum and no rows.
func (s *scan) checkMissing(seen []uint64) error {
	if !s.trusted {
		return nil
	}
	return s.tx.Bucket(bucketShim).ForEach(func(k, _ []byte) error {
		if len(k) != 9 || k[0] != 'g' {
			return nil
		}
		g := binary.BigEndian.Uint64(k[1:])
		if _, ok := slices.BinarySearch(seen, g); ok {
			return nil
		}
		return s.corruptAt(offset(s.handle, k), fmt.Errorf("the rows of revisions %d to %d are missing", g*groupRevisions, (g+1)*groupRevisions-1))
	})
}
