// Package watchcache is the event log and its watchers. It keeps no second copy of
// the state: what is not in the log any more is read from the store's history.
//
// # Data flow
//
//	who applies -- Append --> log (all events of the window, bounded)
//	                                |-- sub-log per topic (references)
//	                                '-- marks the groups an event concerns
//	notifier -- wakes the watchers of marked groups: a cursor is put on its
//	            stream's ready queue
//	sender of a stream -- Next --> takes the next ready cursor, reads a bounded
//	            batch from the topic's log, the hub's log or View.History, and
//	            puts the cursor back (more to read) or to rest (nothing left)
//
// A watcher is a cursor (the first revision it has not passed) and a key range. It
// has no buffer. Being behind, being far behind and being live differ only in where
// the next batch is read from.
//
// A topic is a resource prefix that somebody watches (/registry/pods/). Its
// watchers share a sub-log, so that they do not walk past the events of others.
// Within a topic, and in the root for everything else, watchers with exactly the
// same range form a group; groups are found by hash (single keys, prefixes ending
// in '/') or by interval (anything). A group nobody's event concerns costs nothing.
// Knowledge of prefixes is an optimisation: each read filters by the key range.
//
// # Goroutines
//
//	apply     (the caller's) Append. Takes Hub.mu and Hub.logMu, both held only for
//	          bounded work; never a stream's lock, never waits for a watcher.
//	notifier  started by Append when a group was marked, at most one, ends when
//	          nothing is marked. Takes group.mu, then Stream.mu.
//	receiver  (the caller's, one per stream) Create, Cancel, RequestProgress.
//	sender    (the caller's, one per stream) Next. Blocks on the client in its own
//	          time only.
//
// A stream's sender is signalled only while it is parked; one that is busy looks
// again before it parks, which happens under Stream.mu. Hub.Waking tells whoever
// writes to connections that such senders have yet to run.
//
// # Invariants
//
//  1. The log holds every event of the revisions [windowFrom, rev], whole revisions
//     only; a topic's log holds all of the topic's in [max(start, windowFrom), rev].
//  2. A watcher is in its group before the revision its life begins at is read, so
//     every later event wakes it; it begins ready, so every earlier one is read.
//  3. A watcher rests only when it has read to the log's end and was woken for
//     nothing after it. When a cursor is woken from rest it jumps to the revision it
//     was woken for: what lies between does not concern it.
//  4. Hub.notified is r only after every watcher concerned by an event <= r was
//     woken. A stream promises progress r only when notified >= r, no cursor of it
//     that is not at rest stands at or below r, and it has sent nothing after r. As in
//     etcd the answer to a cancel may come behind a promise that is not about its
//     watch any more.
//     While a request for progress waits, reads stop at its revision, so it is
//     answered however fast writes come.
//  5. A batch is whole revisions. BatchCreated comes before any event of a watch,
//     and nothing of a watch comes after its BatchCancelled.
//  6. An event in the log holds encodings, never a *mvcc.Version: the window keeps
//     one previous version per event alive, not the chain behind it. A previous
//     version, or one in the history, that has left memory is read from the
//     database by the stream that sends it; where a compaction has removed it, the
//     event has no previous version, as in etcd. A stream ends if it cannot be read.
//
// # Limits
//
// limits.go. The window is bounded by events and by bytes; the oldest revisions
// leave first. A batch is bounded by revisions and bytes, a read by the events it
// looks at. Answers to Create and Cancel are bounded per stream: the receiver
// blocks when the client does not read them; they have every other turn of the sender, and a
// watch is read from when its BatchCreated is out. Progress requests are bounded per
// stream: the newest replaces the last one waiting. The number of watchers is
// bounded by the transport's streams and the clients' memory of their IDs only, as
// in etcd.
//
// A watcher that falls behind is not cancelled for it. It ends when its cursor is
// below the compacted revision and outside of the window; a new watch whose start
// revision is compacted is refused even if the window still had it, as in etcd.
package watchcache
