package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// sockets is a connection of the loopback address, and its other end.
func sockets(t *testing.T) (c, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if other, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = other.Close() })
	return c, other
}

// TestEagerConn: a write that need not wait keeps what the kernel does not take, and all arrives in order.
func TestEagerConn(t *testing.T) {
	plain, other := sockets(t)
	c := newEagerConn(plain)
	if c.raw == nil {
		t.Skip("not on this system")
	}
	var want bytes.Buffer
	piece := make([]byte, 100_000)
	write := func(now bool) {
		for i := range piece {
			piece[i] = byte(want.Len() + i*i)
		}
		want.Write(piece)
		c.wait(!now)
		if n, err := c.Write(piece); n != len(piece) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	for c.ready() {
		write(true) // nobody reads
	}
	write(true)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(other)
		got <- b
	}()
	write(false)
	if !c.ready() {
		t.Error("a write that waits leaves something")
	}
	write(true)
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	_ = plain.Close()
	if b := within(t, "all", got); !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes, want %d, or others", len(b), want.Len())
	}
	c.wait(false)
	if _, err := c.Write(piece); err == nil {
		t.Error("written to a closed connection")
	}
}

// TestSendNow: with a peer that does not read, Send does not wait, and what it could not send arrives when the peer reads again.
func TestSendNow(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, manyQueued, func(o *Options) { o.Dial = nil }), newMember(t, 2)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	b.onMessage = func(m *raftpb.Message) error {
		if m.GetType() == raftpb.MsgApp {
			<-release
		}
		return nil
	}
	connect(a, b)
	a.reaches(2)
	data := bytes.Repeat([]byte("x"), 10_000)
	n := uint64(0)
	for q := a.tr.link(2).queues[laneAppend]; q.size() < 1<<20; n++ {
		a.send(appendOf(1, 2, n, data))
	}
	free()
	await(t, "all appends", func() bool { return b.count(raftpb.MsgApp) == int(n) })
	for i, got := range indexes(b.messages(raftpb.MsgApp)) {
		if got != uint64(i) {
			t.Fatalf("append %d in place %d", got, i)
		}
	}
	if a.losses(2) != 0 {
		t.Error("a loss")
	}
}

// TestArrivals: a token lets one connection in, and only while somebody waits for it.
func TestArrivals(t *testing.T) {
	var a arrivals
	one, two := sockets(t)
	token, arrived := a.expect()
	if !a.give(token, one) || a.give(token, two) {
		t.Error("a token is good for one connection")
	}
	a.forget(token, arrived)
	if _, err := one.Write([]byte("x")); err == nil {
		t.Error("a connection that nobody took is open")
	}
	if a.give(token, two) || len(a.waiting) != 0 {
		t.Error("nobody waits any more")
	}
}

// TestReadFrame: an end between two frames is told from one within, and a length that cannot be is refused.
func TestReadFrame(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"", io.EOF}, {"\x01", io.ErrUnexpectedEOF}, {"\x02\x00\x00\x00a", io.ErrUnexpectedEOF}, {"\x02\x00\x00\x00ab", nil},
		{"\xff\xff\xff\xffab", errMalformed},
	} {
		b, err := readFrame(bufio.NewReader(bytes.NewBufferString(c.in)), 100)
		if !errors.Is(err, c.want) || err == nil && string(b) != "ab" {
			t.Errorf("%q: %q, %v", c.in, b, err)
		}
	}
}

// TestPipeOfNobody: a member that accepts a stream and names no pipe is refused.
func TestPipeOfNobody(t *testing.T) {
	a := newMember(t, 1)
	for _, token := range []string{"", "00", "not hexadecimal"} {
		if _, err := a.tr.dialPipe(t.Context(), a.url, token); !errors.Is(err, ErrIncompatible) {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// TestOneLaneLost: a connection that goes nowhere, while all others are well, ends the link, whichever lane it is.
func TestOneLaneLost(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, func(o *Options) { o.ProbeInterval, o.ProbeTimeout = 20*time.Millisecond, 100*time.Millisecond }), newMember(t, 2)
	connect(a, b)
	for which := range messageLanes {
		a.reaches(2)
		e := a.tr.link(2).epoch.Load()
		e.pipes[which].plain.Conn.(*faultyConn).stall()
		await(t, "the link to be given up", func() bool { return e.ctx.Err() != nil })
		if err := context.Cause(e.ctx); !errors.Is(err, errSilent) {
			t.Errorf("lane %v: %v", lane(which), err)
		}
		await(t, "a new link", func() bool { now := a.tr.link(2).epoch.Load(); return now != nil && now != e })
	}
}

// TestProbesRide: where frames come often a probe goes with one, and by itself if none comes; without them it goes by itself at once.
func TestProbesRide(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, func(o *Options) { o.ProbeInterval, o.ProbeTimeout = time.Hour, 2*time.Hour }), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	e := a.tr.link(2).epoch.Load()
	p := &e.probings[laneControl]
	answered := func() {
		t.Helper()
		await(t, "an echo", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.ticks < 0 && p.next.Load() == 0
		})
	}
	heartbeats := func(n int) {
		for range n {
			a.send(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(1)), To: new(uint64(2))})
		}
	}
	answered()
	heartbeats(ridingFramesMin)
	e.look(laneControl)
	if p.next.Load() == 0 {
		t.Fatal("it went by itself though heartbeats go")
	}
	heartbeats(1)
	answered()
	e.look(laneControl)
	answered()
	heartbeats(ridingFramesMin)
	e.look(laneControl)
	if p.next.Load() == 0 {
		t.Fatal("it went by itself though heartbeats went")
	}
	e.look(laneControl)
	answered()
	if e.ctx.Err() != nil {
		t.Error(context.Cause(e.ctx))
	}
}
