package eagerio

import (
	"io"
	"net"
	"syscall"
)

// conn is a connection whose bytes go through Read and Write. One goroutine may read and one may write at a time.
type conn struct {
	net.Conn
	raw           syscall.RawConn
	in, out       attempt
	doIn, doWrite func(fd uintptr) bool // made once, as a func that is made for each call is garbage
}

// attempt carries one call into the callback of the poller.
type attempt struct {
	p   []byte
	n   int
	err error
}

// Conn gives a connection that is used like c, but by one reader and one writer at a time. It is c itself if that has no descriptor.
func Conn(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	e := &conn{Conn: c, raw: raw}
	e.doIn, e.doWrite = e.read, e.write
	return e
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in = attempt{p: p}
	err := c.raw.Read(c.doIn)
	did := c.in
	c.in = attempt{}
	switch {
	case err != nil:
		return 0, err
	case did.err != nil:
		return 0, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: did.err}
	case did.n == 0:
		return 0, io.EOF
	}
	return did.n, nil
}

// read is false when the poller shall call again once there is something to read.
func (c *conn) read(fd uintptr) bool {
	c.in.n, c.in.err = again(Read, fd, c.in.p)
	return c.in.err != syscall.EAGAIN
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.out = attempt{p: p}
	err := c.raw.Write(c.doWrite)
	did := c.out
	c.out = attempt{}
	if err == nil && did.err != nil {
		err = &net.OpError{Op: "write", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: did.err}
	}
	return did.n, err
}

// write is false when the poller shall call again once more can be written.
func (c *conn) write(fd uintptr) bool {
	o := &c.out
	for o.n < len(o.p) {
		n, err := again(Write, fd, o.p[o.n:])
		if err == syscall.EAGAIN {
			return false
		}
		if o.n += n; err != nil {
			o.err = err
			break
		}
	}
	return true
}

// again makes the call until no signal comes between.
func again(call func(uintptr, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		if n, err := call(fd, p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
