// Package freeport finds ports for the servers that tests start as processes of
// their own.
//
// A port that is looked for and let go again can be anybody's by the time a
// server takes it: a connection's, another test's, or that of a client which
// tries to connect to it and meets itself. So a port is kept: a socket is bound
// to it that never listens. Linux gives it to nobody who asks for any port, and
// lets a server listen on it that names it, if both have SO_REUSEADDR, which
// every Go program has.
//
// Data flow: Addr and Reserve ask the kernel for a port of the loopback and keep
// the socket; Addr until the test ends, Reserve until the process does.
//
// Goroutines: none; all of it may be called by any.
//
// Limits: a file descriptor a port. Beyond Linux a port is only looked for.
package freeport
