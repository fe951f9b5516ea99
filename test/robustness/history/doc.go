// Package history records what the clients and watchers of a store were told, and judges whether it can be true: of one member or
// of several, over kills, partitions and changes of the leader.
//
// # Data flow
//
// A Client makes calls on a connection to one member and writes each as an Op into a Recording, with the time of the call and of the
// answer on one clock. An Op without a response is one of which nobody knows: its call failed, by whatever error. A WatchClient keeps
// some watches open on a connection to one member, over as many streams as that needs, each going on where the last one ended, as
// etcd's own client does; a Watcher keeps what one of them got.
//
// Afterwards, New makes the History of what one watcher of all keys got, from the first revision on: the states at all revisions.
// Everything else is compared with it. Settle finds out which of the calls without an answer took effect: values are unlike, so who
// wrote what is there succeeded.
//
//	CheckAnswers       each answer is what the model answers at its revision; nothing acknowledged is missing, no revision given twice
//	CheckOrder         who asks after somebody was answered sees that revision or a later one: strictly serializable
//	CheckLinearizable  each key's calls, by porcupine
//	CheckLeases        a revocation takes the lease's keys, and nothing else does
//	Watcher.Check      etcd's promises of a watch, one function each in validate.go
//
// Reads that ask to be serializable may be of the past, so CheckOrder and CheckLinearizable leave them out.
//
// # Goroutines
//
// Run of a Client and of a WatchClient is one each, the latter has a second that asks for progress. Recordings and Watchers have
// their own locks; checks are made when all have ended.
//
// # Limits
//
// A state is kept for each revision: some ten thousand revisions of some dozens of keys.
package history
