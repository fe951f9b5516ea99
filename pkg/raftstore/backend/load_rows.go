package backend

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// rowsPerPartMin is how many rows are worth a part of their own, and partsPerReader how many parts there are for each of the processors:
// the smaller they are, the more of what is dead is known when a part is read.
const (
	rowsPerPartMin = 4096
	partsPerReader = 16
)

// Readers is how many parts of a Load are best read at the same time.
func Readers() int { return runtime.GOMAXPROCS(0) }

// part is the rows of bucket key whose groups are in [from, to). What it finds is that of the goroutine which reads it, until build has
// returned.
type part struct {
	*loader
	from, to uint64
	at       int64 // the place of the row at hand, -1 before the first and behind the last
	done     bool  // all was read
	failed   error // a *CorruptError that reading has found
}

// split cuts the rows into some parts for each processor, or fewer if there are few rows. A file without sums, which say how
// many rows lie where, is one part.
func (l *loader) split(rows int) []*part {
	n := max(1, min(partsPerReader*Readers(), rows/rowsPerPartMin))
	parts := []*part{{loader: l, to: math.MaxUint64, at: -1}}
	before := 0
	for _, g := range l.groups {
		last := parts[len(parts)-1]
		if before >= rows/n*len(parts) && len(parts) < n && g.group > last.from {
			last.to = g.group
			parts = append(parts, &part{loader: l, from: g.group, to: math.MaxUint64, at: -1})
		}
		before += int(g.rows)
	}
	return parts
}

// blame says where the err that build has answered, if any, was found: in the first part that was not read to its end.
func (l *loader) blame(parts []*part, err error) error {
	for _, p := range parts {
		switch {
		case p.failed != nil:
			return p.failed
		case p.at >= 0 && err != nil:
			return l.corruptAt(p.at, err)
		}
	}
	if err != nil {
		return l.corrupt(err)
	}
	return nil
}

// rows yields the rows and compares the sums. The goroutine may read outside of the mapping meanwhile: it panics.
func (p *part) rows(yield func(mvcc.Row, error) bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s := &scan{part: p, yield: yield}
	err := s.run()
	if s.stopped {
		return
	}
	p.at, p.done = -1, err == nil
	if err != nil {
		p.failed = err
		yield(mvcc.Row{}, err)
	}
}

// scan is one reading of a part. It compares each group with its sum once the group is complete.
type scan struct {
	*part
	yield   func(mvcc.Row, error) bool
	stopped bool // yield wanted no more
	group   uint64
	have    sum
	start   int64 // of the group's first row
	seen    []uint64

	finder  pageFinder
	buffers []*loadBuffer
	rows    int // yielded
	bytes   int // of them
}

// run reads the part to its end, unless yield wants no more. The error is a *CorruptError.
func (s *scan) run() error {
	bucket := s.tx.Bucket(bucketKey)
	if bucket == nil {
		return nil
	}
	err := s.read(bucket)
	if s.stopped {
		return nil
	}
	if err == nil {
		err = s.checkGroup()
	}
	if err == nil {
		err = s.checkMissing()
	}
	if err != nil {
		return s.corruptAt(-1, err)
	}
	return nil
}

func (s *scan) read(bucket *bbolt.Bucket) error {
	root := bucket.Root()
	if root == 0 { // its page is part of another one, and small
		cursor := bucket.Cursor()
		more, err := true, error(nil)
		for k, v := cursor.First(); k != nil && more && err == nil; k, v = cursor.Next() {
			more, err = s.row(k, v, offset(s.handle, k))
		}
		return err
	}
	var from, to []byte
	if s.from > 0 {
		from = binary.BigEndian.AppendUint64(nil, s.from*groupRevisions)
	}
	if s.to <= math.MaxUint64/groupRevisions {
		to = binary.BigEndian.AppendUint64(nil, s.to*groupRevisions)
	}
	s.finder.begin(s.db.path, s.tx, uint64(root))
	return s.finder.leaves(from, to, s.leaves)
}

// row takes a row; false: it is behind the part, or no more are wanted.
func (s *scan) row(k, v []byte, at int64) (more bool, err error) {
	if len(k) < rowKeyBytes {
		return false, s.corruptAt(at, fmt.Errorf("row key of %d bytes", len(k)))
	}
	g := groupOf(k)
	switch {
	case g < s.from:
		return true, nil
	case g >= s.to:
		return false, nil
	case s.have.count == 0 || g != s.group:
		if err := s.checkGroup(); err != nil {
			return false, err
		}
		s.group, s.have, s.start = g, sum{}, at
		s.seen = append(s.seen, g)
	}
	s.have.add(k, v)
	s.at = at
	if mainOf(k) > s.above {
		return true, nil
	}
	s.rows, s.bytes = s.rows+1, s.bytes+len(v)
	s.stopped = !s.yield(mvcc.Row{Key: k, Value: v}, nil)
	return !s.stopped, nil
}

// checkGroup is nil if the rows of the group are those that were written.
func (s *scan) checkGroup() error {
	if !s.trusted || s.have.count == 0 {
		return nil
	}
	var want sum
	if v := s.tx.Bucket(bucketShim).Get(groupKey(s.group)); v != nil {
		var err error
		if want, err = decodeSum(v); err != nil {
			return s.corruptAt(s.start, err)
		}
	}
	if s.have != want {
		return s.corruptAt(s.start, fmt.Errorf("the %d rows of revisions %d to %d do not have the checksum they were written with (%d rows)",
			s.have.count, s.group*groupRevisions, (s.group+1)*groupRevisions-1, want.count))
	}
	return nil
}

// checkMissing looks for groups that have a sum and no rows.
func (s *scan) checkMissing() error {
	if !s.trusted {
		return nil
	}
	cursor := s.tx.Bucket(bucketShim).Cursor()
	for k, _ := cursor.Seek(groupKey(s.from)); len(k) == 9 && k[0] == 'g'; k, _ = cursor.Next() {
		g := binary.BigEndian.Uint64(k[1:])
		if g >= s.to {
			break
		}
		if _, ok := slices.BinarySearch(s.seen, g); !ok {
			return s.corruptAt(offset(s.handle, k), fmt.Errorf("the rows of revisions %d to %d are missing", g*groupRevisions, (g+1)*groupRevisions-1))
		}
	}
	return nil
}
