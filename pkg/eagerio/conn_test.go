package eagerio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair is two ends of a connection, the first of them wrapped.
func pair(t *testing.T) (ours, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ours = Conn(accepted)
	if ours == accepted {
		t.Fatal("a TCP connection is not wrapped")
	}
	t.Cleanup(func() { _, _ = other.Close(), ours.Close() })
	return ours, other
}

// TestBothWays sends more than the kernel buffers, in pieces below and above what one raw call takes, to an end that answers it.
func TestBothWays(t *testing.T) {
	for _, size := range []int{1, rawBytesMax, rawBytesMax + 1, 16 << 20} {
		ours, other := pair(t)
		sent := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		go func() { _, _ = io.CopyN(other, other, int64(size)) }()
		wrote := make(chan error, 1)
		go func() {
			n, err := ours.Write(sent)
			if err == nil && n != size {
				err = io.ErrShortWrite
			}
			wrote <- err
		}()
		got := make([]byte, size)
		if _, err := io.ReadFull(ours, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back wrong, %v", size, err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	}
}

func TestEnds(t *testing.T) {
	ours, other := pair(t)
	if n, err := ours.Read(nil); n != 0 || err != nil {
		t.Errorf("read nothing: %d, %v", n, err)
	}
	_ = other.Close()
	if n, err := ours.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("read behind the end: %d, %v", n, err)
	}
	_ = ours.Close()
	if _, err := ours.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from what is closed: %v", err)
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write to what is closed: %v", err)
	}
}

// TestCloseWakes: whoever waits in Read or Write is woken by Close, and Read by its deadline.
func TestCloseWakes(t *testing.T) {
	ours, _ := pair(t)
	_ = ours.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := ours.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read behind the deadline: %v", err)
	}
	_ = ours.SetReadDeadline(time.Time{})
	errs := make(chan error, 2)
	go func() {
		_, err := ours.Read(make([]byte, 10))
		errs <- err
	}()
	go func() {
		for {
			if _, err := ours.Write(make([]byte, 1<<20)); err != nil {
				errs <- err
				return
			}
		}
	}()
	_ = ours.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// TestErrors: the kernel's error is told, as one of the net package.
func TestErrors(t *testing.T) {
	ours, other := pair(t)
	_ = other.(*net.TCPConn).SetLinger(0)
	_ = other.Close()
	_, err := ours.Read(make([]byte, 10))
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
		t.Errorf("read from what was reset: %v", err)
	}
}

// TestNoDescriptor: what has no descriptor stays what it is.
func TestNoDescriptor(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Conn(a) != a {
		t.Error("it was wrapped")
	}
}

// TestNoGarbage: a message that is there is read and answered without an allocation.
func TestNoGarbage(t *testing.T) {
	ours, other := pair(t)
	b, answer := make([]byte, 64), make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = other.Write(b)
		_, _ = io.ReadFull(ours, b)
		_, _ = ours.Write(b)
		_, _ = io.ReadFull(other, answer)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
