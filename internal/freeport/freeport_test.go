package freeport

import (
	"net"
	"runtime"
	"testing"
)

// TestKept: whoever asks for any port gets another one, whoever connects comes from another one, and a server that names it has it, again and
// again.
func TestKept(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ports are kept on Linux")
	}
	kept := map[string]bool{}
	for range 100 {
		addr := Addr(t)
		if kept[addr] {
			t.Fatalf("%s twice", addr)
		}
		kept[addr] = true
	}
	for addr := range kept {
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Fatalf("%s: connected from %s to nobody", addr, c.LocalAddr())
		}
		for range 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if from := c.LocalAddr().String(); kept[from] {
				t.Errorf("a connection comes from %s", from)
			}
			if _, err := net.Listen("tcp", addr); err == nil {
				t.Errorf("%s has two servers", addr)
			}
			any, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if kept[any.Addr().String()] {
				t.Errorf("%s was given away", any.Addr())
			}
			for _, x := range []interface{ Close() error }{c, l, any} {
				if err := x.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
