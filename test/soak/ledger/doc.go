// Package ledger keeps what the clients of one store were told for as long as a
// soak takes, and judges at the end whether it can be true. It is the model that
// the soak is checked against.
//
// # Data flow
//
// A client begins a Write before it sends it and says afterwards what came of it:
// Acked with the answer's revision, Refused when the store said that nothing
// happened, Unknown when nobody knows. Gets and whole lists are recorded with the
// revision that they are of. One Witness watches everything from the first
// revision on: what it was told is the log, in which no revision may be missing.
// Followers are all other watches; a hash of what they got, in its order, is kept.
//
// Judge replays the log on a map and compares everything with it:
//
//	log        dense; versions and create revisions follow from what was before;
//	           deletions are of what was there
//	writes     what was acknowledged is at its revision, as it was asked for, and
//	           nothing else is there; what was refused is nowhere; what nobody
//	           knows is there once or not at all
//	order      a write's revision is behind all that was answered before it was
//	           sent, a read's is not before it
//	leases     what no client wrote is an expiry: all keys of one lease, not before
//	           its time
//	reads      gets and lists are the map at their revision
//	followers  got each event of their range from their start on, once, in order,
//	           with the version before it where they asked for that, and all of it
//	           before a promise (a progress notification) of its revision
//
// # Goroutines
//
// None. A Ledger may be used by many; a Witness and a Follower belong to the
// goroutine that reads the stream. Judge is called when all have ended.
//
// # Limits
//
// Values are kept as 64-bit hashes: two values that differ are taken for equal
// once in 2^64. Nothing is written by anybody but the ledger's clients, each key
// by one client at a time, in transactions that write one key. About 100 bytes a
// revision: some millions of them.
package ledger
