package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestLinkShared: what several read comes one after the other, at the link's pace all
// together, and a link that carried nothing makes up for a moment only.
func TestLinkShared(t *testing.T) {
	const speed = 100 << 20
	l, now := newLink(speed), time.Unix(100, 0)
	begin := l.arrival(0, now)
	if begin.After(now) {
		t.Errorf("what nobody asked for comes in %v", begin.Sub(now))
	}
	var last time.Time
	for range 2 * speed / linkReadBytes { // of any reader
		next := l.arrival(linkReadBytes, now)
		if !next.After(last) {
			t.Fatal("two reads come at the same time")
		}
		last = next
	}
	if took := last.Sub(begin); took != 2*time.Second {
		t.Errorf("%d bytes come in %v, at %d a second", 2*speed, took, speed)
	}
	now = last.Add(time.Hour)
	if l.arrival(speed, now) != now.Add(time.Second-linkIdleMax) {
		t.Error("an hour without readers is made up for")
	}
}

// TestLinkCarries: all that is written comes; without a link as well.
func TestLinkCarries(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789"), linkReadBytes/4)
	for _, l := range []*link{newLink(linkDefault * mbit), newLink(0)} {
		at, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		failed := make(chan error, 1)
		go func() {
			c, err := at.Accept()
			if err == nil {
				_, err = c.Write(sent)
				c.Close()
			}
			failed <- err
		}()
		c, err := l.connect(t.Context(), at.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		if err != nil || <-failed != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d came: %v", len(got), len(sent), err)
		}
	}
}
