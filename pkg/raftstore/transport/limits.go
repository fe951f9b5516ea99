package transport

import "time"

// Defaults of Options; each is described there.
const (
	dialTimeoutDefault            = 2 * time.Second
	probeIntervalDefault          = 500 * time.Millisecond
	probeTimeoutDefault           = time.Second
	backoffMaxDefault             = time.Second
	queueBytesDefault             = 64 << 20
	queueMessagesDefault          = 4096
	messageBytesDefault           = 64 << 20
	snapshotStallTimeoutDefault   = 30 * time.Second
	snapshotInstallTimeoutDefault = 10 * time.Minute
	snapshotsReceivedMaxDefault   = 2
	versionDefault                = "unknown"
)

const (
	// protocolVersion names what goes over the wire: methods, metadata and frames. Members of different versions refuse each other.
	protocolVersion = "2"

	// backoffMin is the pause before the first attempt after a failed one; it doubles up to Options.BackoffMax.
	backoffMin = 50 * time.Millisecond

	// frameBytesMax is where a batch of messages ends; a larger message is a frame of its own.
	frameBytesMax = 256 << 10
	// frameBufferMax is the largest buffer of a frame that is kept for the next one.
	frameBufferMax = 2 * frameBytesMax
	// sendNowBytesMax is how much may wait for the sending goroutine to send it itself.
	sendNowBytesMax = 16 << 10
	// pipeBufferBytes is what a receiver reads at once; of a larger frame the rest goes straight to its place.
	pipeBufferBytes = 16 << 10
	// appendProbeFactor is how much longer the probes of the append lane take, and may take: they are behind data, and a handler.
	appendProbeFactor = 5
	// ridingFramesMin is how many frames of the control lane between two looks at its probes say that another one comes soon: a leader's, or one
	// of those that answer it.
	ridingFramesMin = 3
	// reasonPatience is how long a pipe that broke waits for the stream beside it to tell why.
	reasonPatience = 500 * time.Millisecond
	// frameSlackBytes is what a frame may be larger than Options.MessageBytesMax: lengths, the shell of a message, the probe.
	frameSlackBytes = 1 << 20
	// entryOverhead and messageOverhead are about what an entry and a message take beside their data.
	entryOverhead   = 24
	messageOverhead = 64

	// streamWindowBytes is how far the sender of a snapshot may be ahead of a receiver that does not read; connWindowBytes is the same
	// for a connection.
	streamWindowBytes = 1 << 20
	connWindowBytes   = 8 << 20
	// clientWindowBytes is the same for what servers send: answers to calls.
	clientWindowBytes = 256 << 10
	// unsentBytesMax is what the kernel may hold of a connection that is not on its way yet (TCP_NOTSENT_LOWAT): what is in there is in
	// front of every later heartbeat.
	unsentBytesMax = 128 << 10

	// snapshotChunkBytes is the data of one frame of a snapshot.
	snapshotChunkBytes = 128 << 10
	// snapshotRateMin keeps the pause between two chunks below the stall timeout.
	snapshotRateMin = 64 << 10

	// remotesMax bounds the links to members that dialed this one before it learned of them.
	remotesMax = 8
	// refusedInterval is the least time between two events about refusals of one member for one reason, refusedKindsMax of how many of those
	// it is remembered; all others together are one more.
	refusedInterval = 10 * time.Minute
	refusedKindsMax = 64
	// callsMax bounds the calls that one peer may have under way at this member, its streams included.
	callsMax = 256
	// callNameBytesMax bounds the name of a call.
	callNameBytesMax = 64
	// headerBytesMax bounds the metadata of a stream.
	headerBytesMax = 16 << 10

	// connectionsMax bounds the open connections of Serve; further ones wait in the kernel's queue.
	connectionsMax = 1024
	// routeTimeout bounds the time until a new connection is known to be gRPC or HTTP, its handshake included.
	routeTimeout = 10 * time.Second
	// httpTimeout bounds a request to the HTTP paths, httpIdleTimeout a connection without one.
	httpTimeout     = 30 * time.Second
	httpIdleTimeout = time.Minute
	// keepAliveInterval and keepAliveTimeout are for what probes do not cover: the receiving side, and snapshots.
	keepAliveInterval = 10 * time.Second
	keepAliveTimeout  = 5 * time.Second
	keepAliveMinTime  = 5 * time.Second

	// fetchTimeout is how long one URL may take to answer (etcd: 10 s), fetchBytesMax how much it may answer.
	fetchTimeout  = 10 * time.Second
	fetchBytesMax = 4 << 20
)
