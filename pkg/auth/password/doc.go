// Package password hashes and checks passwords with bcrypt, few at a time.
//
// A hash of the default cost takes a core 50 ms, by design, and a login is open to everybody who reaches the port: without a bound, a
// hundred clients with wrong passwords take every core from the writes. So at most half of the cores are at it, at least one; who
// comes meanwhile waits for a turn, in the order of coming, and no longer than its context.
//
// # Goroutines
//
// None: the caller's hashes. A hash that has begun is brought to its end, whoever is still interested.
//
// # Limits
//
// As many waiters as there are calls. bcrypt takes 72 bytes of a password; a longer one is refused when it is set, as by etcd.
package password
