package discovery

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that end a Join, with etcd's texts.
var (
	ErrInvalidURL   = errors.New("discovery: invalid peer URL")
	ErrBadSizeKey   = errors.New("discovery: size key is bad")
	ErrSizeNotFound = errors.New("discovery: size key not found")
	ErrFullCluster  = errors.New("discovery: cluster is full")
)

// JoinError is a Join that failed.
type JoinError struct{ Err error }

func (e *JoinError) Error() string {
	return fmt.Sprintf("failed to join discovery cluster (%v)", e.Err)
}

// Unwrap is the cause.
func (e *JoinError) Unwrap() error { return e.Err }

// Options are the --discovery-... flags that say how to reach the service.
type Options struct {
	Endpoints []string // URLs, or host:port; the calls go to them in turn
	Token     string

	DialTimeout      time.Duration // of one connection; default 2 s
	RequestTimeout   time.Duration // of one call; default 5 s
	KeepAliveTime    time.Duration // between two pings of a connection with a call on it; default 2 s
	KeepAliveTimeout time.Duration // for the answer to a ping; default 6 s

	// CertFile and KeyFile are shown to the service, CAFile is whom to trust: the system's CAs when empty.
	CertFile, KeyFile, CAFile string
	// Insecure allows endpoints without a scheme to be reached without TLS.
	Insecure bool
	// InsecureSkipVerify uses TLS and believes every certificate.
	InsecureSkipVerify bool

	// User and Password are sent when both are there. A user "name:password" is taken apart when there is no password.
	User, Password string

	// OnEvent is told what happens; default: nobody.
	OnEvent func(Event)
	// After is the clock of the pauses between attempts; default time.After.
	After func(time.Duration) <-chan time.Time
}

// EnsureDefaults fills the zero fields.
func (o *Options) EnsureDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.DialTimeout, DialTimeoutDefault}, {&o.RequestTimeout, RequestTimeoutDefault},
		{&o.KeepAliveTime, KeepAliveTimeDefault}, {&o.KeepAliveTimeout, KeepAliveTimeoutDefault},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if name, password, ok := strings.Cut(o.User, ":"); ok && o.Password == "" {
		o.User, o.Password = name, password
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.After == nil {
		o.After = time.After
	}
}

// Validate reports everything that is wrong at once.
func (o *Options) Validate() error {
	var errs []error
	if len(o.Endpoints) == 0 || o.Token == "" {
		errs = append(errs, errors.New("both --discovery-token and --discovery-endpoints must be set"))
	}
	for _, e := range o.Endpoints {
		if strings.TrimSpace(e) == "" {
			errs = append(errs, errors.New("--discovery-endpoints must not contain empty endpoints"))
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		errs = append(errs, fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", o.KeyFile, o.CertFile))
	}
	return errors.Join(errs...)
}
