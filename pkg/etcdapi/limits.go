package etcdapi

import (
	"math"
	"time"
)

// Bounds of the protocol layer. Those named as an etcd flag are the defaults of
// the flag; the others are fixed.
const (
	// maxRequestBytesDefault is etcd's --max-request-bytes: the largest command, in bytes.
	maxRequestBytesDefault = 1536 * 1024
	// grpcOverheadBytes is what a gRPC message may be larger than the largest
	// command; beyond it the transport refuses before the message is decoded.
	grpcOverheadBytes = 512 * 1024
	// MaxRequestBytesLimit is the largest Options.MaxRequestBytes.
	MaxRequestBytesLimit = maxSendBytes - grpcOverheadBytes
	// maxTxnOpsDefault is etcd's --max-txn-ops.
	maxTxnOpsDefault = 128
	// maxSendBytes caps a response: gRPC's own length field, so in effect no cap.
	maxSendBytes = math.MaxInt32
	// maxConcurrentStreamsDefault is etcd's --max-concurrent-streams.
	maxConcurrentStreamsDefault = math.MaxUint32

	// keepAliveMinTimeDefault is etcd's --grpc-keepalive-min-time. clientv3 pings
	// each 30 s or 10 s; grpc-go's own default of 5 min would answer with GOAWAY.
	keepAliveMinTimeDefault = 5 * time.Second
	// keepAliveIntervalDefault is etcd's --grpc-keepalive-interval.
	keepAliveIntervalDefault = 2 * time.Hour
	// keepAliveTimeoutDefault is etcd's --grpc-keepalive-timeout.
	keepAliveTimeoutDefault = 20 * time.Second

	// transportBufferBytesDefault is the size of the read and of the write buffer
	// of a connection. An apiserver opens about 70 connections and most of them
	// idle, so the write buffer is shared between connections.
	transportBufferBytesDefault = 32 * 1024

	// connWriteYieldMax is the size from which a write does not wait for more to
	// send: the transport's buffer was full.
	connWriteYieldMax = transportBufferBytesDefault
	// connBulkBytesMin is the size from which writes take turns: a frame of a large
	// answer.
	connBulkBytesMin = 16 * 1024
	// turnSpendMax is how long large answers write beside commands, all together,
	// before they rest for turnRest. A sleep of Go's is 1 ms at least, where nothing
	// else is to be done. Longer rests make lists slower: these leave them a third of their pace.
	turnSpendMax = 500 * time.Microsecond
	turnRest     = time.Millisecond
	// turnStillMax is for how many turnSpendMax no command need come for the rests
	// to end: the heartbeats of a small cluster are 50 ms apart.
	turnStillMax = 64
	// windowBytes is the flow control window of a connection and of each call: what
	// a client may send before it is read. A window of fixed size spares the ping
	// and its answer with which gRPC measures the network beside each request.
	windowBytes = 1 << 20

	// pinnedViewsMax bounds the Views kept alive for the later pages of a list.
	pinnedViewsMax = 16
	// pinnedViewAgeMax is how long an unused pinned View is kept. A client that
	// asks for its next page later than that still gets it, walking old versions.
	pinnedViewAgeMax = 30 * time.Second

	// coldAheadBytes is how much of what a list will read the disk is told of:
	// enough for its queue, and little beside what the kernel has as a cache.
	coldAheadBytes = 4 << 20
	// coldBlockBytes is the least that a row counts there.
	coldBlockBytes = 4 << 10
	// coldRowsAgeMax is how long a list may freeze the rows that it reads from the
	// database. Longer lets slower clients have theirs, and the file grow meanwhile.
	coldRowsAgeMax = time.Minute

	// listBytesDefault is how many bytes of lists may be under way if nobody says.
	listBytesDefault = 256 << 20
	// listFreeBytes is the size of an answer from which on it is a list that waits
	// for its turn.
	listFreeBytes = 256 << 10
	// listsWaitingMax bounds the lists that wait. A further one is answered "too
	// many requests".
	listsWaitingMax = 10_000
	// While lists wait, the client of one that is under way loses its connection
	// if it takes less than listRateMin bytes per second, after listGrace: a list of
	// 60 MB is under way for nine minutes at most. listLookInterval is how often
	// that is looked at.
	listGrace        = 30 * time.Second
	listRateMin      = 128 << 10
	listLookInterval = time.Second

	// snapshotChunkBytes is the payload of one Snapshot message.
	snapshotChunkBytes = 32 * 1024

	// gatewayJSONFactor is how much larger than the largest gRPC message one of the
	// JSON gateway may be: base64 takes a third more, and names and escapes the rest.
	gatewayJSONFactor = 4
	// gatewayListFactor is how much more than its size a list of the gateway takes,
	// which is encoded, decoded, and made JSON.
	gatewayListFactor = 4
	// gatewayPieceBytes is how much of an answer is written at once.
	gatewayPieceBytes = 64 << 10
	// socketBufferBytes is the size of each buffer of a WebSocket.
	socketBufferBytes = 1024

	// recipeLeaseSeconds is the TTL of the lease that Lock and Campaign make for a
	// caller without one; etcd's.
	recipeLeaseSeconds = 60
	// recipeCleanupMax bounds what is done for a caller of Lock or Campaign that has gone.
	recipeCleanupMax = 5 * time.Second

	// encodeWholeBytesMax is the largest response encoded into one pooled buffer.
	// Larger ones are a chain of chunks and of values shared with the store.
	encodeWholeBytesMax = 32 * 1024
	// encodeChunkBytes is the size of a chunk: one of the sizes gRPC's pool keeps.
	encodeChunkBytes = 32 * 1024
	// encodeListHeadBytes is the size of the chunk for what is around a large list.
	encodeListHeadBytes = 128
	// encodeShareBytesMin is the smallest encoded key-value that a large response
	// shares when it stands alone; those of a list are encoded as they are sent.
	encodeShareBytesMin = 512
	// encodeSmallBytes is the largest response that is part of its encoder. A
	// write that read nothing is answered with 30 to 50 bytes.
	encodeSmallBytes = 64
	// encodeSizePassKeysMax is the number of keys above which a list is taken for
	// large without adding up its size first.
	encodeSizePassKeysMax = 1024
)
