package handover

import (
	"errors"
	"net"
	"testing"
)

// TestListener: what is given is accepted; a closed listener closes what it is
// given, and whoever accepts hears of it.
func TestListener(t *testing.T) {
	l := New(&net.TCPAddr{Port: 2379})
	if l.Addr().String() != ":2379" {
		t.Errorf("address %s", l.Addr())
	}
	here, _ := net.Pipe()
	go l.Give(here)
	if c, err := l.Accept(); err != nil || c != here {
		t.Fatalf("accepted %v, %v", c, err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	late, other := net.Pipe()
	l.Give(late)
	if _, err := other.Write([]byte{1}); err == nil {
		t.Error("the connection is still open")
	}
}
