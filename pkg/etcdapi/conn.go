package etcdapi

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/kubeshim/shim/pkg/eagerio"
)

// http2Preface is what every HTTP/2 client says first. Its first three bytes
// are enough to tell it from HTTP/1: no method of HTTP/1 begins with PRI.
var http2Preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// traffic counts the bytes of the gRPC connections as they are on the wire.
type traffic struct {
	received atomic.Uint64
	sent     atomic.Uint64
}

// conn is one accepted connection. It serves the few bytes that were looked at
// to tell gRPC from HTTP/1 and is the socket itself from then on; it gives its
// place in the connection limit back when it is closed; and it counts its
// traffic once it is known to be gRPC.
//
// It implements the method that grpc-go looks for to read without pinning a
// read buffer (32 kB) on each idle connection. grpc-go would do that by itself
// for a bare *net.TCPConn; an apiserver keeps about 70 connections, most of
// them idle, so the wrapper must not lose it.
//
// Ownership: the routing goroutine until the connection is handed to a server,
// then that server's; head, traffic and the read state are touched by the one
// goroutine that reads.
type conn struct {
	net.Conn
	raw     syscall.RawConn // nil if the connection has no descriptor
	writer  net.Conn        // Conn, or its eager form
	head    []byte          // looked at, not read yet
	traffic *traffic        // nil: not counted
	more    func() bool     // see FrontOptions.MoreToSend; nil: never
	turns   *turns          // of those that write much; nil: nobody waits
	release func()          // gives the place back
	closed  atomic.Bool
	lists   listHolder // what was lent to lists that are sent here

	ready  readState
	doRead func(fd uintptr) bool
}

// readState carries one ReadOnReady call into the callback of the poller; as
// fields, so that a read allocates nothing.
type readState struct {
	bufSize int
	pool    mem.BufferPool
	buf     *[]byte
	n       int
	err     error
}

func newConn(c net.Conn, release func()) *conn {
	w := &conn{Conn: c, writer: eagerio.Conn(c), release: release}
	w.lists.drop = func() { _ = c.Close() } // its user notices, and closes w
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
			w.doRead = w.readReady
		}
	}
	return w
}

// isHTTP2 reads until it can tell whether the client speaks HTTP/2; what it
// read is served again. The caller has set a deadline.
func (c *conn) isHTTP2() (bool, error) {
	const decided = 3
	buf := make([]byte, len(http2Preface))
	n := 0
	for {
		m, err := c.Conn.Read(buf[n:])
		n += m
		c.head = buf[:n]
		if !bytes.HasPrefix(http2Preface, c.head) {
			return false, nil
		}
		if n >= decided {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		c.count(n)
		return n, nil
	}
	n, err := c.Conn.Read(p)
	c.count(n)
	return n, err
}

// count adds received bytes. grpc-go and crypto/tls both read from one
// goroutine.
func (c *conn) count(n int) {
	if c.traffic != nil && n > 0 {
		c.traffic.received.Add(uint64(n))
	}
}

// Write lets goroutines that are about to send run first: grpc-go's writer is
// scheduled right behind the first of many senders, and would make a system call
// for each message.
func (c *conn) Write(p []byte) (int, error) {
	if c.more != nil && len(p) < connWriteYieldMax && c.more() {
		runtime.Gosched()
	}
	write := c.writer.Write
	if c.turns != nil && c.raw != nil && len(p) >= connBulkBytesMin {
		write = c.writeInTurn
	}
	n, err := write(p)
	if c.traffic != nil && n > 0 {
		c.traffic.sent.Add(uint64(n))
	}
	return n, err
}

// writeInTurn has large answers take turns. A client that does not read waits
// without one.
func (c *conn) writeInTurn(p []byte) (n int, err error) {
	var failed error
	err = c.raw.Write(func(fd uintptr) bool {
		defer c.turns.end(c.turns.take(), time.Now())
		for n < len(p) {
			m, err := syscall.Write(int(fd), p[n:])
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return false // again when it can be written to
			case err != nil:
				failed = err
				return true
			}
			n += m
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// Close closes the socket and gives back what was lent to its lists, and the
// connection's place, once.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.lists.end()
	if c.closed.CompareAndSwap(false, true) && c.release != nil {
		c.release()
	}
	return err
}

// ReadOnReady waits until there is something to read, and only then takes a
// buffer from pool. The caller gives the buffer back. (Source: the Reader
// interface of grpc-go's internal/transport/readyreader.)
func (c *conn) ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.head) > 0 || c.raw == nil {
		buf := pool.Get(bufSize)
		n, err := c.Read(*buf)
		return buf, n, err
	}
	c.ready = readState{bufSize: bufSize, pool: pool}
	err := c.raw.Read(c.doRead)
	got := c.ready
	c.ready = readState{}
	if err == nil {
		err = got.err
	}
	if err == nil && got.n == 0 {
		err = io.EOF
	}
	if got.n <= 0 {
		if got.buf != nil {
			pool.Put(got.buf)
		}
		return nil, 0, err
	}
	c.count(got.n)
	return got.buf, got.n, err
}

// readReady is one attempt to read; false asks the poller to call again when
// the descriptor is readable.
func (c *conn) readReady(fd uintptr) bool {
	s := &c.ready
	s.buf = s.pool.Get(s.bufSize)
	for {
		s.n, s.err = eagerio.Read(fd, *s.buf)
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.err == nil {
		return true
	}
	s.pool.Put(s.buf)
	s.buf, s.n = nil, 0
	return s.err != syscall.EAGAIN
}
