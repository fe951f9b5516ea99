package etcdapi

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kubeshim/shim/pkg/auth/token"
)

// Options tune the protocol layer. The zero value of a field means its default.
type Options struct {
	// MaxRequestBytes is the largest command in bytes (--max-request-bytes, 1.5 MiB).
	// It bounds what the transport accepts (plus 512 KiB), the fragments of a watch
	// and the chunks of a RangeStream. The same number belongs into the store's
	// configuration, which refuses larger commands.
	MaxRequestBytes int
	// MaxTxnOps is the largest number of compares, or of operations in a branch,
	// of a txn (--max-txn-ops, 128); below 0: none at all.
	MaxTxnOps int
	// MaxConcurrentStreams bounds the calls under way on one connection
	// (--max-concurrent-streams, practically unlimited). Further calls wait in the client.
	MaxConcurrentStreams uint32

	// KeepAliveMinTime is the shortest interval at which a client may ping
	// (--grpc-keepalive-min-time, 5 s); one that pings faster is disconnected.
	KeepAliveMinTime time.Duration
	// KeepAliveInterval is the idle time after which the server pings a client
	// (--grpc-keepalive-interval, 2 h); negative: never.
	KeepAliveInterval time.Duration
	// KeepAliveTimeout is how long the server waits for the answer to its ping
	// (--grpc-keepalive-timeout, 20 s).
	KeepAliveTimeout time.Duration

	// ReadBufferBytes and WriteBufferBytes are the transport's buffers per
	// connection (32 KiB each; the write buffer is borrowed while there is
	// something to write). Larger ones mean fewer system calls for large lists.
	ReadBufferBytes, WriteBufferBytes int
	// StreamWorkers is the number of goroutines kept to run calls (0: a new
	// goroutine per call). Keeping some saves the growth of fresh stacks.
	StreamWorkers uint32

	// WatchProgressNotifyInterval is how often a watch with progress_notify and no
	// events is told the revision (--watch-progress-notify-interval, 10 min, at
	// least 100 ms); up to a tenth is added per stream, so that not all are told at once.
	WatchProgressNotifyInterval time.Duration

	// Tokens are those of logins (--auth-token). The store's configuration has to
	// have the same. Default none: nobody can log in.
	Tokens token.Provider
	// BcryptCost is the cost of hashing a password (--bcrypt-cost, 10).
	BcryptCost int
	// ClientCertAuth has the common name of a client's certificate stand for its
	// user, if a call has no token (--client-cert-auth).
	ClientCertAuth bool
	// ListBytes is how many bytes of large answers may be under way (256 MiB). A
	// list waits for its turn beyond that. More lets more lists be sent at the same
	// time, and each may keep as much in memory as it is large.
	ListBytes int64

	// OnSlowCall is told of each unary call that took longer than SlowCallMin, on
	// the goroutine of the call; nil: nobody is told. Negative: of each.
	OnSlowCall  func(SlowCall)
	SlowCallMin time.Duration
	// OnSlowRead is told of each range, or txn that only reads, that took longer than
	// SlowReadMin (--warning-apply-duration), which etcd counts with slow applies.
	OnSlowRead  func(SlowRead)
	SlowReadMin time.Duration

	// TracerProvider makes the spans of calls (--enable-distributed-tracing); the
	// store has to be open with Config.Trace then. nil: nothing is traced.
	TracerProvider trace.TracerProvider

	// Ranges measure ranges; nil: nobody does.
	Ranges *RangeMetrics
	// ExtensiveMetrics adds histograms of handling times (--metrics=extensive).
	ExtensiveMetrics bool
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.MaxRequestBytes, maxRequestBytesDefault)
	setDefault(&o.MaxTxnOps, maxTxnOpsDefault)
	setDefault(&o.Tokens, token.None)
	setDefault(&o.MaxConcurrentStreams, maxConcurrentStreamsDefault)
	setDefault(&o.KeepAliveMinTime, keepAliveMinTimeDefault)
	setDefault(&o.KeepAliveInterval, keepAliveIntervalDefault)
	setDefault(&o.KeepAliveTimeout, keepAliveTimeoutDefault)
	setDefault(&o.ReadBufferBytes, transportBufferBytesDefault)
	setDefault(&o.WriteBufferBytes, transportBufferBytesDefault)
	setDefault(&o.ListBytes, listBytesDefault)
	setDefault(&o.WatchProgressNotifyInterval, watchProgressIntervalDefault)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports everything that is wrong with the options at once.
func (o *Options) Validate() error {
	var errs []error
	if o.MaxRequestBytes < 1 || o.MaxRequestBytes > MaxRequestBytesLimit {
		errs = append(errs, fmt.Errorf("max request bytes %d is out of range", o.MaxRequestBytes))
	}
	if o.KeepAliveMinTime < 0 || o.KeepAliveTimeout < 0 {
		errs = append(errs, errors.New("keep-alive times must not be negative"))
	}
	if o.ReadBufferBytes < 0 || o.WriteBufferBytes < 0 {
		errs = append(errs, errors.New("transport buffers must not be negative"))
	}
	if o.ListBytes < 0 {
		errs = append(errs, fmt.Errorf("lists of %d bytes", o.ListBytes))
	}
	return errors.Join(errs...)
}
