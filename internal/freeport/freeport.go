package freeport

import (
	"net"
	"strconv"
	"testing"
)

// Addr is an address of the loopback, "127.0.0.1:port", that nobody else gets before the test ends.
func Addr(t testing.TB) string {
	t.Helper()
	addr, release, err := reserve()
	if err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	t.Cleanup(release)
	return addr
}

// Port is the port of Addr.
func Port(t testing.TB) int {
	t.Helper()
	_, text, err := net.SplitHostPort(Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Reserve is Addr for programs: nobody else gets the port before this process ends.
func Reserve() (addr string, err error) {
	addr, _, err = reserve()
	return addr, err
}
