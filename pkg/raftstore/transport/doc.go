// Package transport carries raft messages, snapshots and calls between the members of a cluster, over gRPC and connections that belong to
// gRPC streams, all on the peer port. It knows nothing of raft's state, of disks or of keys: what comes in goes to a Handler, what goes out comes from the node goroutine.
//
// # Data flow
//
//	Send ---> queue per peer and lane --batch--> frame --pipe--> frame --> Handler.Message
//	           Control: heartbeats, votes, responses, read indexes, probes
//	           Append:  MsgApp, MsgProp
//	SendSnapshot --open--> chunks --gRPC stream on a connection of its own--> Handler.ReceiveSnapshot --> status --> Handler.SnapshotSent
//	Call --gRPC call on the connection of the messages--> Handler.Call
//
// Each member dials each other one and sends on the connection that it dialed; nothing but echoes, answers and statuses comes back on it.
// So who sends is who retries. Each lane is a gRPC stream and a pipe (pipe.go). The stream is for identities, for the time that it lasts, and
// for the reason why it ends; the frames go through the pipe, a connection of their own with the same TLS. Two pipes do not wait for each
// other, and the kernel is kept from hoarding data that is not on its way yet, so that a heartbeat waits neither for an append of 8 MiB
// nor for a peer that takes no appends.
//
// Send writes small frames by itself if nobody else is writing and the kernel takes them at once; else the lane's sender does. So a message
// of a quiet cluster wakes nobody here, and on the other side one goroutine, which also has the turn that the message is for
// (Handler.Delivered). Small reads and writes are none of the scheduler's business (package eagerio), so that one thread wakes and no other.
//
// A link goes through epochs. An epoch is a gRPC connection, on which both sides have checked who the other one is, and its pipes. When it ends,
// what waits is dropped, Handler.Unreachable is called, and the peer's URLs are tried in turn, with pauses that double; a connection from
// the peer ends the pause. Messages that come in while a connection is being made wait for it, those that come in during a pause are dropped.
//
// # Identity
//
// Both sides say who they are in the metadata of every stream and call (identity.go): member, cluster, the member meant, protocol, URLs. The
// receiver refuses in this order: another protocol, another cluster, not meant, removed or unknown (Handler.Refuses); the sender checks the
// same of the receiver before it sends anything. The texts are etcd's. A member that is refused with ErrRemoved tells its Handler.
// After SetPeers, streams of members that are refused now are ended. With TLS, certificates are the business of the tls.Configs.
// Who is refused and goes on trying is told of once, and again each refusedInterval (refuselog.go).
//
// A member that this one does not know may be let in, as this one may be behind. A link to the URLs that it names is kept as long as it
// has streams here, so that it can be answered.
//
// etcd's own members speak HTTP/1 below /raft, which is refused with an answer that they log; dialing one of them fails as it speaks no gRPC.
//
// # Goroutines
//
//	name              owns                            receives                       bound, and what happens at it
//	report            what to tell the Handler        notes of all others            an entry per peer: later ones are the same
//	link, per peer    the connection, the backoff     echoes, kicks                  one attempt at a time
//	sender, two       nothing: who writes to a pipe   what Send left                 QueueMessages, QueueBytes: dropped, Unreachable
//	 per epoch        holds its mutex                                                a peer that does not read: blocks, the queue fills
//	listener, two     -                               the status of a lane's stream  -
//	 per epoch
//	hearer, two       the way back of a pipe          echoes                         -
//	 per epoch
//	snapshot sender   one snapshot's reader           -                              one per peer: SnapshotSent(false);
//	                                                                                 SnapshotStallTimeout, SnapshotInstallTimeout
//	stream body, per  the pipe's end, the order of    frames                         one per member and lane: a newer one replaces it, after
//	 incoming stream  Handler.Message                                                it has ended; SnapshotsReceivedMax: refused
//	Serve: accept,    the listener; a connection      connections                    connectionsMax: wait in the kernel;
//	 route            until it is handed over                                        routeTimeout: closed
//
// gRPC and net/http have theirs: two per connection and one per stream or request. Handler methods are called from report, from
// snapshot senders and from stream bodies, Call and Refuses also from gRPC's.
//
// # Invariants
//
//	T1  Within an epoch and a lane, what arrives is what was queued, in order, without holes, up to some point. Between epochs there are
//	    holes, but no repetition and no change of order. Between lanes there is no order: raft needs none.
//	T2  Whatever is dropped, or may be lost with a connection, is followed by Handler.Unreachable.
//	T3  No message is handed on before both sides have checked the identities, nor one that claims another sender than its stream's. A
//	    pipe belongs to the stream whose token it names; a token is 16 random bytes, told on the stream only, and good for one pipe.
//	    (Followers pass on what is asked of the leader: MsgProp, MsgReadIndex, and MsgTransferLeader, whose sender is the one that shall lead.)
//	T4  Send never blocks, and no method of the Handler is called from within it. What it writes goes out in the order of the queue, as who
//	    writes takes from it and writes under one mutex, and nothing is written to an epoch that has ended.
//	T5  The last bytes of a snapshot are given out only after the size and the checksum of all were found right, and the sender hears of success
//	    only after ReceiveSnapshot has returned nil.
//	T6  SnapshotSent is called once for each SendSnapshot, unless Close comes first.
//
// # Liveness
//
// The control lane is probed every ProbeInterval, and the echo measures the round trip; where heartbeats go, a probe goes with the next of them. The
// append lane is probed a fifth as often, and has
// five times as long, as each is a connection that the network may lose on its own. Without an echo for ProbeTimeout, counted in
// looks of this process, the epoch ends: a peer that vanished is noticed and, more important, dialed anew instead of waiting for TCP's
// ever longer retransmissions once the network has healed. gRPC's own keepalive cannot do it: it pings every 10 s at most. It does find out
// dead senders on the receiving side, and dead ends of snapshots.
//
// # Memory
//
// Per peer and lane: a queue of QueueBytes, the buffer of one frame (256 KiB, or one message), as much again when the kernel did not take all of
// one, and what the kernel buffers. Per sender: one frame and 16 KiB per lane. Received entries share the memory of their frame, so whoever
// keeps a few bytes of one for long should copy them.
//
// # Format
//
// Pipes: pipe.go. Frames of messages: frame.go. Snapshots: snapshot_send.go. Metadata: identity.go. All of it is protocolVersion; there is no negotiation.
//
// # Limits
//
// A message is at most MessageBytesMax, which must be equal on all members: a larger one is dropped, with an event. Snapshots are not resumed
// in the middle; raft asks for another. There is no compression. Members are told from each other by what they say: without TLS and client
// certificates anybody on the network can claim to be one, as with etcd.
package transport
