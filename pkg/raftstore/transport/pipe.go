package transport

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/eagerio"
)

// A pipe is a connection of its own for the frames of one lane. The lane's gRPC stream says who is who, lasts as long, and tells why it
// ends; it carries nothing else. The receiver answers the stream with a token, and the sender begins the pipe with it:
//
//	offset  bytes
//	0       4      pipePreface
//	4       16     the token
//	20      ...    frames: 4 bytes length, little endian, and as many bytes (frame.go)
//
// What comes back is one byte, pipeTaken, once the stream has the pipe, and then the probes, 8 bytes each.
//
// The bytes do not go through gRPC because of what that takes for a small message: its framing, its flow control and three goroutines
// to be woken, one that writes, one that reads, and the one that the stream belongs to. A pipe is written to by whoever sends, if
// that need not wait, and read by the goroutine that hands the messages on.
const (
	pipePreface = "shm2"
	// pipeProtocol is what a pipe over TLS offers in its handshake (ALPN).
	pipeProtocol = "shim-pipe"
	// keyPipe is where the receiver's answer to a stream has the token.
	keyPipe = "x-shim-pipe"

	pipeTaken = 1

	frameLengthBytes = 4
)

type pipeToken [16]byte

// pipe is the sender's end.
type pipe struct {
	conn  net.Conn // with TLS, if any
	plain *eagerConn

	mu     sync.Mutex // the right to write. All below belongs to who holds it.
	closed bool       // the epoch is over, or a write failed
	buf    []byte     // of the last frame, for the next one
	batch  []outgoing
}

// dialPipe opens a pipe to the URL. It is closed when ctx ends.
func (t *Transport) dialPipe(ctx context.Context, raw, token string) (*pipe, error) {
	key, err := hex.DecodeString(token)
	if err != nil || len(key) != len(pipeToken{}) {
		return nil, ErrIncompatible
	}
	a, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	conn, err := t.o.Dial(ctx, a.network, a.address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	p := &pipe{plain: newEagerConn(conn)}
	p.conn = p.plain
	p.plain.wait(true)
	defer p.plain.wait(false)
	if a.secure {
		if p.conn, err = t.securePipe(ctx, p.plain, a.host); err != nil {
			return nil, err
		}
	}
	if _, err = p.conn.Write(append([]byte(pipePreface), key...)); err != nil {
		return nil, err
	}
	var taken [1]byte
	if _, err := io.ReadFull(p.conn, taken[:]); err != nil {
		return nil, err
	}
	if taken[0] != pipeTaken {
		return nil, ErrIncompatible
	}
	return p, nil
}

func (t *Transport) securePipe(ctx context.Context, plain net.Conn, host string) (net.Conn, error) {
	c := t.o.ClientTLS().Clone()
	c.NextProtos = []string{pipeProtocol}
	if c.ServerName == "" {
		c.ServerName = host
		if name, _, err := net.SplitHostPort(host); err == nil {
			c.ServerName = name
		}
	}
	conn := tls.Client(plain, c)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != pipeProtocol {
		return nil, ErrIncompatible
	}
	return conn, nil
}

// write sends a frame of the messages, with a probe unless that is 0, and answers its size. If now, it does not wait, and what does not go
// out at once goes before the next. The caller holds mu.
func (p *pipe) write(probe uint64, messages []outgoing, now bool) (int, error) {
	p.buf = appendFrame(append(p.buf[:0], 0, 0, 0, 0), probe, messages)
	binary.LittleEndian.PutUint32(p.buf, uint32(len(p.buf)-frameLengthBytes))
	if !now {
		p.plain.wait(true)
		defer p.plain.wait(false)
	}
	n, err := p.conn.Write(p.buf)
	if err != nil {
		p.closed = true // the frame may be torn
	}
	if cap(p.buf) > frameBufferMax {
		p.buf = nil
	}
	return n, err
}

// end takes the right to write away for good.
func (p *pipe) end() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

// eagerConn is a connection whose writes do not wait but while one is told to: what the kernel does not take at once is kept. TLS writes to it
// as well, at times from the goroutine that reads.
type eagerConn struct {
	net.Conn
	raw    syscall.RawConn // nil: this is no connection that can do it; all writes wait
	echoes net.Conn        // Conn, for reads
	moved  atomic.Uint64   // how often the kernel took as much as a frame usually has, of one that may be larger

	mu    sync.Mutex
	waits bool
	taken int    // by the kernel, since it began to wait or moved was counted
	rest  []byte // kept; at most one frame and what TLS says by itself
}

func newEagerConn(c net.Conn) *eagerConn {
	e := &eagerConn{Conn: c, echoes: eagerio.Conn(c)}
	if sc, ok := c.(syscall.Conn); ok {
		e.raw, _ = sc.SyscallConn()
	}
	return e
}

// writeNow writes what the kernel takes without waiting.
func writeNow(c syscall.RawConn, b []byte) (n int, err error) {
	var failed error
	err = c.Write(func(fd uintptr) bool {
		n, failed = eagerio.Write(fd, b)
		return true
	})
	if err == nil && failed != syscall.EAGAIN && failed != syscall.EINTR {
		err = failed
	}
	return max(n, 0), err
}

func (c *eagerConn) wait(waits bool) {
	c.mu.Lock()
	c.waits, c.taken = waits, 0
	c.mu.Unlock()
}

// ready: nothing is kept, and nobody writes. It does not wait.
func (c *eagerConn) ready() bool {
	if c.raw == nil || !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	return len(c.rest) == 0
}

// Read implements net.Conn.
func (c *eagerConn) Read(b []byte) (int, error) { return c.echoes.Read(b) }

// Write implements net.Conn.
func (c *eagerConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits || c.raw == nil {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
		return c.pieces(b)
	}
	n := 0
	if len(c.rest) == 0 {
		var err error
		if n, err = writeNow(c.raw, b); err != nil {
			return n, err
		}
	}
	c.rest = append(c.rest, b[n:]...)
	return len(b), nil
}

// pieces writes b and counts how it gets on, so that a large frame on a slow network is told from one that goes nowhere. TLS comes with a record at
// a time.
func (c *eagerConn) pieces(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Conn.Write(b[n:min(len(b), n+frameBytesMax)])
		n, c.taken = n+m, c.taken+m
		if c.taken >= frameBytesMax {
			c.taken = 0
			c.moved.Add(1)
		}
	}
	return n, err
}

// flush writes what was kept, and waits for it.
func (c *eagerConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *eagerConn) flushLocked() error {
	if len(c.rest) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.rest)
	c.rest = nil
	return err
}

// arrivals are the pipes that streams wait for, by their tokens.
type arrivals struct {
	mu      sync.Mutex
	waiting map[pipeToken]chan net.Conn
}

// expect makes a token. The channel has room for the one connection that comes with it.
func (a *arrivals) expect() (pipeToken, chan net.Conn) {
	var token pipeToken
	_, _ = rand.Read(token[:]) // never fails
	arrived := make(chan net.Conn, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = make(map[pipeToken]chan net.Conn)
	}
	a.waiting[token] = arrived
	return token, arrived
}

// forget ends the wait, and closes a connection that came and was not taken.
func (a *arrivals) forget(token pipeToken, arrived chan net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, token)
	select {
	case c := <-arrived:
		_ = c.Close()
	default:
	}
}

// give hands a connection to who waits for it, once per token.
func (a *arrivals) give(token pipeToken, c net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	arrived, ok := a.waiting[token]
	if ok {
		delete(a.waiting, token)
		arrived <- c
	}
	return ok
}

// take reads how a pipe begins and hands it over.
func (a *arrivals) take(c net.Conn) error {
	var head [len(pipePreface) + len(pipeToken{})]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if string(head[:len(pipePreface)]) != pipePreface {
		return errMalformed
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if !a.give(pipeToken(head[len(pipePreface):]), c) {
		return errMalformed
	}
	return nil
}

// receiveLane is the body of a message stream: it waits for the pipe and hands on what comes there.
func (t *Transport) receiveLane(ctx context.Context, in *incoming, s grpc.ServerStream) error {
	token, arrived := t.arrivals.expect()
	defer t.arrivals.forget(token, arrived)
	md := t.introduce(in.key.from)
	md.Set(keyPipe, hex.EncodeToString(token[:]))
	if err := s.SendHeader(md); err != nil {
		return err
	}
	select {
	case c := <-arrived:
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		if _, err := c.Write([]byte{pipeTaken}); err != nil {
			return err
		}
		return t.receiveFrames(in, c)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Transport) receiveFrames(in *incoming, c net.Conn) error {
	received, failed := t.metrics.from(in.key.from)
	r := bufio.NewReaderSize(c, pipeBufferBytes)
	for {
		b, err := readFrame(r, t.o.MessageBytesMax+frameSlackBytes)
		if err == nil {
			received.Add(float64(len(b)))
			err = t.takeFrame(in, c, b)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			failed.Inc()
			return err
		}
	}
}

// readFrame reads one frame into memory of its own, which its entries will share. io.EOF is an end between two frames.
func readFrame(r *bufio.Reader, bytesMax int) ([]byte, error) {
	head, err := r.Peek(frameLengthBytes)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if uint64(n) > uint64(bytesMax) {
		return nil, fmt.Errorf("%w: %d bytes", errMalformed, n)
	}
	_, _ = r.Discard(frameLengthBytes)
	b := make([]byte, min(n, 2*frameBytesMax)) // a larger one grows as it comes: the length is only what somebody says
	for at := 0; ; {
		m, err := io.ReadFull(r, b[at:])
		if at += m; err != nil {
			return nil, fmt.Errorf("%w within a frame", io.ErrUnexpectedEOF)
		}
		if at == int(n) {
			return b, nil
		}
		b = append(b, make([]byte, min(int(n)-at, at))...)
	}
}
