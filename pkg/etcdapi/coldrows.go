package etcdapi

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// errEvicted: an answer needs versions that have left memory, and was to be made
// without reading any.
var errEvicted = errors.New("versions have left memory")

// errUnreadable: what has left memory cannot be read.
var errUnreadable = errors.New("cannot read versions that have left memory")

// coldRows reads the versions of one answer that have left memory. The rows are
// frozen as long as it is open, so that a large list can be encoded as it is
// sent. Frozen rows keep room in the database that could be used again: each
// coldRowsAgeMax a list that takes longer goes on with the rows as they are by
// then, of which compaction may have removed some.
//
// What cannot be read when it is to be sent has been promised already, by its
// length and by the objects around it. Then the connection is closed before a
// wrong byte is written: the client asks again.
//
// A row that has to be waited for takes as long as the disk needs for one place,
// and a list asks for one after the other. So the disk is told of the next ones
// before: as many as take coldAheadBytes there, again each time that half of them
// were read. It has them in any order it likes meanwhile, and the kernel keeps
// them until they are asked for.
//
// It is used by one goroutine at a time but for the timer: first the handler's,
// then the connection's writer. mu guards reader and ahead.
type coldRows struct {
	rows mvcc.Rows
	drop func() // closes the connection
	refs atomic.Int32

	mu     sync.Mutex
	reader mvcc.RowReader // nil: closed, or too old
	timer  *time.Timer
	ahead  coldAhead
}

// coldAhead is what a list will read, in the order in which it will. A part is
// let go of when it was read, so that none keeps in memory what was sent.
type coldAhead struct {
	parts   [][]mvcc.Encoding
	read    int // parts before it were read
	told    int // parts before it were told to the disk
	waiting int // bytes, as told, of the parts in between
	rows    []mvcc.RowAhead
}

// newColdRows goes on with a reader that has been begun. Who holds it last
// closes it: the caller is the first.
func newColdRows(ctx context.Context, rows mvcc.Rows, r mvcc.RowReader) *coldRows {
	sendPlain(ctx)
	c := &coldRows{rows: rows, reader: r, drop: dropper(ctx)}
	c.refs.Store(1)
	c.timer = time.AfterFunc(coldRowsAgeMax, c.closeReader)
	return c
}

func (c *coldRows) ref() { c.refs.Add(1) }

func (c *coldRows) free() {
	if c.refs.Add(-1) == 0 {
		c.timer.Stop()
		c.closeReader()
	}
}

func (c *coldRows) closeReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader != nil {
		c.reader.Close()
		c.reader = nil
	}
}

// add takes a part of a list that will be read, and answers its place.
func (c *coldRows) add(kvs []mvcc.Encoding) (place int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead.parts = append(c.ahead.parts, kvs)
	return len(c.ahead.parts) - 1
}

// reach says that the part at a place is to be read now.
func (c *coldRows) reach(place int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// An error will be met again by who reads the rows.
	if rows := c.ahead.reach(place); len(rows) > 0 && c.open() == nil {
		c.reader.ReadAhead(rows)
	}
}

// reach answers what to tell the disk when a part is to be read.
func (a *coldAhead) reach(place int) []mvcc.RowAhead {
	a.rows = a.rows[:0]
	for ; a.read < min(place, len(a.parts)); a.read++ {
		if a.read < a.told {
			a.waiting -= a.bytes(a.read)
		}
		a.parts[a.read] = nil
	}
	a.told = max(a.told, a.read)
	if a.waiting > coldAheadBytes/2 {
		return nil
	}
	for ; a.told < len(a.parts) && a.waiting < coldAheadBytes; a.told++ {
		for _, e := range a.parts[a.told] {
			a.rows = e.AppendAhead(a.rows)
		}
		a.waiting += a.bytes(a.told)
	}
	return a.rows
}

// bytes is what the rows of a part take on the disk, about: a row by itself takes
// a block. What has not left memory is counted too, as if it had.
func (a *coldAhead) bytes(part int) (n int) {
	for _, e := range a.parts[part] {
		n += max(e.Len(), coldBlockBytes)
	}
	return n
}

// append appends an encoding, wherever it is.
func (c *coldRows) append(b []byte, e mvcc.Encoding) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.open(); err != nil {
		return b, err
	}
	return e.Append(b, c.reader)
}

// open freezes the rows as they are now if they are not frozen. The caller holds
// mu.
func (c *coldRows) open() error {
	if c.reader != nil {
		return nil
	}
	r, err := c.rows.Begin()
	if err != nil {
		return err
	}
	c.reader = r
	c.timer.Reset(coldRowsAgeMax)
	return nil
}

// dropper closes the connection of a call, without a word to the other side. A
// call that came by way of net/http writes on its handler's goroutine, whose
// panic ends the stream.
func dropper(ctx context.Context) func() {
	c := socketOf(ctx) // Close of a tls.Conn would wait for the client
	return func() {
		if c == nil {
			panic(http.ErrAbortHandler)
		}
		_ = c.Close()
	}
}

// socketOf is the connection of a call, below its TLS; nil if it came by way of
// net/http.
func socketOf(ctx context.Context) net.Conn {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	var c net.Conn
	switch info := p.AuthInfo.(type) {
	case plainInfo:
		c = info.conn
	case tlsInfo:
		c = info.conn
	}
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// answerFrom makes an answer from a View that shows revision rev of it, 0 for its
// own. mvcc.ErrOvertaken: it is to be made from a newer View.
func (s *Server) answerFrom(ctx context.Context, v *mvcc.View, rev mvcc.Revision, encode func(*coldRows) (*reply, error)) (*reply, error) {
	r, err := v.Rows(rev)
	if err != nil {
		return nil, err
	}
	return answerWith(ctx, newColdRows(ctx, s.store.Rows(), r), encode)
}

// answerApplied makes the answer of a command that has been applied.
func (s *Server) answerApplied(ctx context.Context, encode func(*coldRows) (*reply, error)) (*reply, error) {
	r, err := s.store.Rows().Begin()
	if err != nil {
		return nil, err
	}
	return answerWith(ctx, newColdRows(ctx, s.store.Rows(), r), encode)
}

// answerWith makes an answer. That of the gateway is read now: it is on its way to
// the end of the pipe at once, and a row that cannot be read is to fail this call,
// not all that share the pipe.
func answerWith(ctx context.Context, c *coldRows, encode func(*coldRows) (*reply, error)) (*reply, error) {
	defer c.free()
	if !byGateway(ctx) {
		return encode(c)
	}
	lost := false
	c.drop = func() { lost = true }
	a, err := encode(c)
	if err != nil {
		return nil, err
	}
	for _, b := range a.bufs {
		if partOf(b) != nil && !lost {
			b.ReadOnlyData()
		}
	}
	if lost {
		a.bufs.Free()
		return nil, errUnreadable
	}
	return a, nil
}
