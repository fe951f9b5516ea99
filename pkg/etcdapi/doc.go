// Package etcdapi is the protocol: etcd's gRPC services and HTTP endpoints on
// top of one raftstore.Store and one watchcache.Hub, which it uses directly.
//
// # Data flow
//
//	bytes -> codec -> interceptor -> handler of the verb
//	           |                       | check the request's shape (mvcc.Check...)
//	           |                       +- write: Store.Propose(command) -> mvcc.Result
//	           |                       +- read:  Store.ReadView or View  -> View.Range
//	bytes <- codec <- reply <- encoder -+
//
// A command goes into the log as the bytes it arrived in: the codec decodes a
// writing request and keeps its bytes, nothing is marshalled a second time. A
// response of the KV service is built as bytes: the store keeps versions as
// encoded key-values, and the encoder writes headers, tags and lengths around
// them. A large list is encoded in chunks as the transport comes to them, and holds
// pointers to versions until then (encode_list.go).
// All other messages are plain proto in both directions. What large answers write
// to the sockets goes in turns, so that lists do not take all processors, and with
// rests while commands are applied (turns.go).
//
// # Stack
//
// gRPC runs each call on a fresh goroutine, whose stack is 2 or 4 kB, and its own
// frames take 1.8 kB of that. A call that needs more has its stack copied, on
// each call, and the larger one thrown away afterwards: that was 10 % of the CPU
// of a write. So what a write of KV has on its stack is kept small down to the
// channel it waits on: no chain of interceptors (9 frames), the command and its
// result in the request (type write), and in raftstore no frame that both
// prepares and waits. From the handler down it went from 2.7 to 1.1 kB, and the
// growing of stacks in a profile from 11 % to 5 % of a create and from 12 % to
// 4 % of an update; most of what is left is gRPC's own, encoding the headers. The
// time of a call is not settled by that: on a busy machine a create took 61.5 µs
// of CPU before (floor 29.5) and 62.0 and 50.5 after (floor 32.0 and 29.5). What
// a profile shows under runtime.newstack is the check; "go tool objdump" tells
// the frames.
//
// A get is answered by View.get, past the frames of a range of many: from 23.6 to
// 22.2 µs of CPU (mean of four runs, taken in turns).
//
// gRPC's stream workers (Options.StreamWorkers) would do the same for any depth,
// but each of an apiserver's 70 and more watch streams takes one for good.
//
// # Files
//
// One file per verb or service: kv_*.go, lease.go, maintenance.go, snapshot.go,
// downgrade.go, cluster.go, auth.go, lock*.go, election.go, watch*.go. codec.go,
// encode*.go and header.go are the wire format; errors.go is the one place where
// gRPC codes and texts are born; grpcserver.go is the one place where the transport
// is tuned.
// slow.go tells of calls that take long, trace.go makes spans: both cost a look at
// a number or a pointer where nothing is slow, or traced.
// listen.go, tls.go and http*.go put gRPC and HTTP on one port.
//
// # The recipes
//
// Lock and Election run the recipes of etcd's client library in the server
// (lock.go, election.go). Their calls are made inside the process with the context
// of the caller (lock_local.go): the handlers of KV check, write and answer, the
// hub tells of the end of a key, and only the transport is left out. A call that
// waits costs its goroutine and one watch. When its caller goes, or the server
// stops, its key is deleted; when that fails its lease ends it.
//
// # The gateway
//
//	HTTP -> access (host, CORS) -> JSON -> pipe -> gRPC server -> handler
//
// gateway*.go serve the API as JSON under /v3/, with etcd's own generated
// translation. A request is a gRPC call over a connection inside the process: of a
// server of its own, so that HTTP ends first and those of gRPC's clients are not
// waited for, and the other way round. It costs nothing until the first request.
// A message of JSON is bounded before it is decoded; a WebSocket is one stream. Its
// lists borrow of the budget of lists until their client has taken the JSON.
//
// # Who asks
//
// With auth on, identity.go finds out who makes a call, from its context alone:
// the user of the token in the metadata, or else, with --client-cert-auth, the
// common name of the client's certificate, or else nobody. A write takes that
// along and is checked where it is applied (package auth); a read is checked
// against the View that it is answered from, a watch when it is made. What etcd
// checks before the log is checked there here, too: compactions, members, leases,
// and maintenance. With auth off all of it is one comparison.
//
// A simple token may come to a member that has not applied the login yet. The
// call then reads at a read index once, which is behind the login if there was
// one: nobody waits for an entry that never comes.
//
// Passwords are hashed in turns (package auth/password), before the log, which
// has none.
//
// # Goroutines
//
// A call runs on the goroutine gRPC gives it. Beside those there are:
//
//   - one per LeaseKeepAlive stream that reads and answers it, so that the
//     handler can end with its context while a renewal waits;
//   - one per Watch stream that receives its requests; the handler's own goroutine
//     sends, and waits for the client's flow control;
//   - one per stream with hasleader metadata, which waits for the loss of the
//     leader or the end of the stream;
//   - the timer of viewPins, which drops Views that are no longer used;
//   - the timer of listBudget, which runs while lists wait and closes the
//     connections of those who hold what others wait for and do not read;
//   - one for the gateway's gRPC server, and one per WebSocket that reads it;
//   - one that counts the objects of all resources, at the start and behind a
//     snapshot that was installed, and one at a time that takes a census of what
//     has grown (resources.go, resources_growth.go);
//   - those of Front: one per listener that accepts, one per connection until it is
//     known whether it is gRPC or HTTP, and what their servers start.
//
// # Invariants
//
//  1. A status sent to a client comes from errors.go, or is one of rpctypes' own.
//  2. A request of the KV service is decoded in the transport's buffer, which is
//     given back, and the request used again, when its handler has returned.
//     Nobody modifies either, and nothing that outlives the call aliases them:
//     the log and the versions have copies.
//  3. Bytes of a version are never modified, so a response may share them after
//     the View it was read from is gone. Versions that have left memory are read
//     from the database when they are encoded (coldrows.go): a read whose View is
//     overtaken by a compaction is answered from a newer one, and a list that is
//     encoded as it is sent keeps its rows frozen.
//  4. An encoded response equals the encoding of the message it stands for,
//     field by field in the order of their numbers.
//  5. Header and content of a read come from one View; the header tells that
//     View's revision, also if older data was asked for. (The exception is a
//     page read from a kept View: its content is that of the revision asked for,
//     which is the same in both.)
//
// # Limits
//
// limits.go has the numbers. A message larger than --max-request-bytes plus
// 512 KiB is refused by the transport (ResourceExhausted), a command larger than
// --max-request-bytes by the store ("request is too large"). Responses have no
// limit. The Views kept for lists by pages are bounded in number and age; when
// there are more lists the least recently used one reads old versions instead.
// Large answers borrow their size of a budget (Options.ListBytes) before they look
// at the store, and give it back as they are sent; beyond it they wait in the order
// of arrival, without a View (listbudget.go). Whoever does not read while others
// wait loses its connection after half a minute.
// A slow reader of a large list holds the encodings of that list and one chunk, and
// of those that have left memory the rows in the database, for a minute: after that
// a compaction may remove them, and the connection is closed when one is missing.
package etcdapi
