package main

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// mbit is so many bytes.
	mbit = 1_000_000 / 8
	// linkDefault is 1 Gbit/s, in Mbit/s.
	linkDefault = 1000
	// linkBufferBytes is what a connection takes in before it is read, about: on a link
	// what is under way waits with the sender, and not here.
	linkBufferBytes = 64 << 10
	// linkReadBytes is the most that one connection reads before another one's turn.
	linkReadBytes = 32 << 10
	// linkIdleMax is how much of the time in which it carried nothing a link makes up
	// for: timers are late by some of that.
	linkIdleMax = 2 * time.Millisecond
)

// link is the network between some readers and the server: what they read comes one
// after the other, and at this pace all together.
type link struct {
	speed int // bytes a second
	mu    sync.Mutex
	free  time.Time // when all has come that was asked for
}

// newLink makes one that carries so many bytes a second; for 0 none at all, nil.
func newLink(bytesPerSecond int) *link {
	if bytesPerSecond == 0 {
		return nil
	}
	return &link{speed: bytesPerSecond}
}

// carry waits until n more bytes have come.
func (l *link) carry(n int) { time.Sleep(time.Until(l.arrival(n, time.Now()))) }

// arrival is when n bytes have come that are asked for now.
func (l *link) arrival(n int, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if earliest := now.Add(-linkIdleMax); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.speed))
	return l.free
}

// dialed has a connection be read over the link.
func (l *link) dialed() grpc.DialOption { return grpc.WithContextDialer(l.connect) }

func (l *link) connect(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil || l == nil {
		return conn, err
	}
	return linkConn{conn, l}, conn.(*net.TCPConn).SetReadBuffer(linkBufferBytes)
}

// linkConn is read over a link.
type linkConn struct {
	net.Conn
	link *link
}

func (c linkConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), linkReadBytes)])
	c.link.carry(n)
	return n, err
}
