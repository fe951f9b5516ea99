package backend

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"

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
	row      []byte // the key of the row at hand, nil before the first and behind the last
	failed   error  // a *CorruptError that reading has found
}

// split cuts the rows into some parts for each processor, or fewer if there are few rows. A file without sums, which say how
// many rows lie where, is one part.
func (l *loader) split(rows int) []*part {
	n := max(1, min(partsPerReader*Readers(), rows/rowsPerPartMin))
	parts := []*part{{loader: l, to: math.MaxUint64}}
	before := 0
	for _, g := range l.groups {
		last := parts[len(parts)-1]
		if before >= rows/n*len(parts) && len(parts) < n && g.group > last.from {
			last.to = g.group
			parts = append(parts, &part{loader: l, from: g.group, to: math.MaxUint64})
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
		case p.row != nil && err != nil:
			return l.corruptAt(offset(l.handle, p.row), err)
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
	s := &scan{part: p}
	stopped, err := s.run(yield)
	if stopped {
		return
	}
	p.row = nil
	if err != nil {
		p.failed = err
		yield(mvcc.Row{}, err)
	}
}

// scan is one reading of a part. It compares each group with its sum once the group is complete.
type scan struct {
	*part
	group uint64
	have  sum
	start int64 // of the group's first row
	seen  []uint64
	bytes int // of rows since the mapped pages were forgotten
}

// run answers true if yield wanted no more. The error is a *CorruptError.
func (s *scan) run(yield func(mvcc.Row, error) bool) (stopped bool, err error) {
	bucket := s.tx.Bucket(bucketKey)
	if bucket == nil {
		return false, nil
	}
	cursor := bucket.Cursor()
	k, v := cursor.First()
	if s.from > 0 {
		k, v = cursor.Seek(binary.BigEndian.AppendUint64(nil, s.from*groupRevisions))
	}
	for ; k != nil; k, v = cursor.Next() {
		if len(k) < 17 {
			return false, s.corruptAt(offset(s.handle, k), fmt.Errorf("row key of %d bytes", len(k)))
		}
		g := groupOf(k)
		if g >= s.to {
			break
		}
		if s.have.count == 0 || g != s.group {
			if err := s.checkGroup(); err != nil {
				return false, err
			}
			s.group, s.have, s.start = g, sum{}, offset(s.handle, k)
			s.seen = append(s.seen, g)
		}
		s.have.add(k, v)
		if s.bytes += len(v); s.bytes > forgetLoadBytes { // who loads has copied them
			s.bytes = 0
			forget(s.handle.Info().Data, s.db.Size())
		}
		s.row = k
		if mainOf(k) > s.above {
			continue
		}
		if !yield(mvcc.Row{Key: k, Value: v}, nil) {
			return true, nil
		}
	}
	if err := s.checkGroup(); err != nil {
		return false, err
	}
	return false, s.checkMissing()
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
