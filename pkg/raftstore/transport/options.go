package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Peer is a member as the others reach it.
type Peer struct {
	ID uint64
	// URLs are the advertised peer URLs: http and https with host and port, unix and unixs with a path. They are tried in turn.
	URLs []string
}

// Options of a Transport. Member and Cluster must be set; the zero value of any other field means its default.
type Options struct {
	// Member and Cluster are the IDs of this member and of its cluster.
	Member, Cluster uint64
	// Version is what peers are told; it is shown, never compared. Default: "unknown".
	Version string

	// ServerTLS is for Serve; nil: plain text. Its GetCertificate, GetConfigForClient and VerifyConnection are called per handshake, so
	// reloading files and checking names is the caller's business. NextProtos is chosen here.
	ServerTLS *tls.Config
	// ClientTLS gives the configuration of one connection to peers with https and unixs URLs, which cannot be reached without. The server's
	// name is the URL's host unless ServerName is set.
	ClientTLS func() *tls.Config

	// DialTimeout bounds an attempt to connect, TLS and the check of identities included (2 s). Shorter finds a healed network sooner;
	// a TLS handshake takes four round trips.
	DialTimeout time.Duration
	// ProbeInterval is how often a link is probed (500 ms), ProbeTimeout how long an answer may take until the link counts as dead and is
	// dialed anew (1 s; at least two intervals, and rounded up to whole ones). Half of the election timeout and the whole are good choices.
	ProbeInterval, ProbeTimeout time.Duration
	// BackoffMax is the longest pause between two attempts to connect (1 s); pauses are cut by up to half by chance. It ends at once when the
	// peer connects to this member.
	BackoffMax time.Duration

	// QueueBytes and QueueMessages bound what waits for a peer, per lane (64 MiB, 4,096). What comes in beyond is dropped, and the
	// peer reported unreachable. Raft's own flow control should keep below.
	QueueBytes, QueueMessages int
	// MessageBytesMax is the largest message (64 MiB): raft's MaxSizePerMsg, or the largest entry. It must be the same on all members.
	MessageBytesMax int

	// SnapshotBytesPerSecond bounds the rate of a snapshot on its way out; 0: no bound.
	SnapshotBytesPerSecond int64
	// SnapshotStallTimeout ends a snapshot that does not get on for so long, on both sides (30 s).
	SnapshotStallTimeout time.Duration
	// SnapshotInstallTimeout bounds the time between the last byte of a snapshot and the receiver's word that it is stored (10 min).
	SnapshotInstallTimeout time.Duration
	// SnapshotsReceivedMax bounds the snapshots received at a time (2), of different members; more are refused.
	SnapshotsReceivedMax int

	// Registerer takes the metrics; nil: they are not shown.
	Registerer prometheus.Registerer
	// OnEvent is told what is worth a line in a log, from any goroutine; nil: nobody is told.
	OnEvent func(Event)
	// Dial opens connections; nil: a net.Dialer. network is "tcp" or "unix".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// HTTP answers what is on the peer port beside /members, /version and /raft; nil: not found.
	HTTP http.Handler
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.Version, versionDefault)
	setDefault(&o.DialTimeout, dialTimeoutDefault)
	setDefault(&o.ProbeInterval, probeIntervalDefault)
	setDefault(&o.ProbeTimeout, probeTimeoutDefault)
	setDefault(&o.BackoffMax, backoffMaxDefault)
	setDefault(&o.QueueBytes, queueBytesDefault)
	setDefault(&o.QueueMessages, queueMessagesDefault)
	setDefault(&o.MessageBytesMax, messageBytesDefault)
	setDefault(&o.SnapshotStallTimeout, snapshotStallTimeoutDefault)
	setDefault(&o.SnapshotInstallTimeout, snapshotInstallTimeoutDefault)
	setDefault(&o.SnapshotsReceivedMax, snapshotsReceivedMaxDefault)
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Control: limitUnsent}).DialContext
	}
	if o.HTTP == nil {
		o.HTTP = http.NotFoundHandler()
	}
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
	if o.Member == 0 || o.Cluster == 0 {
		errs = append(errs, fmt.Errorf("member ID %x and cluster ID %x must be set", o.Member, o.Cluster))
	}
	for _, d := range []time.Duration{o.DialTimeout, o.ProbeInterval, o.BackoffMax, o.SnapshotStallTimeout, o.SnapshotInstallTimeout} {
		if d < 0 {
			errs = append(errs, errors.New("times must not be negative"))
			break
		}
	}
	if o.ProbeTimeout < 2*o.ProbeInterval {
		errs = append(errs, fmt.Errorf("probe timeout %v is below two probe intervals of %v", o.ProbeTimeout, o.ProbeInterval))
	}
	if o.QueueBytes < 0 || o.QueueMessages < 0 {
		errs = append(errs, errors.New("bounds of queues must not be negative"))
	}
	if o.MessageBytesMax < 0 || o.MessageBytesMax > 1<<30 {
		errs = append(errs, fmt.Errorf("largest message of %d bytes is out of range", o.MessageBytesMax))
	}
	if o.SnapshotBytesPerSecond < 0 || (o.SnapshotBytesPerSecond > 0 && o.SnapshotBytesPerSecond < snapshotRateMin) {
		errs = append(errs, fmt.Errorf("snapshot rate %d is below %d bytes per second", o.SnapshotBytesPerSecond, snapshotRateMin))
	}
	if o.SnapshotsReceivedMax < 0 {
		errs = append(errs, errors.New("number of snapshots received must not be negative"))
	}
	return errors.Join(errs...)
}
