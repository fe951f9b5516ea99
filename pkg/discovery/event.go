package discovery

import (
	"fmt"
	"time"
)

// Event is something that happens while a cluster is being found, worth a line in a log.
type Event interface{ String() string }

// Registered: this member wrote itself.
type Registered struct{ Key, Value string }

func (e Registered) String() string {
	return fmt.Sprintf("register member itself successfully: %s is %s", e.Key, e.Value)
}

// Waiting: some members are there, others not yet.
type Waiting struct{ Size, Found int }

func (e Waiting) String() string {
	return fmt.Sprintf("waiting for peers from discovery service: found %d of %d", e.Found, e.Size)
}

// Found: all members are there.
type Found struct{ Cluster string }

func (e Found) String() string { return "discovery joined cluster successfully: " + e.Cluster }

// Ignored: something under the token is no member.
type Ignored struct{ Key, Value string }

func (e Ignored) String() string {
	return fmt.Sprintf("invalid peer info returned from discovery service: %s is %q", e.Key, e.Value)
}

// Retrying: the service did not answer; the next attempt is After later.
type Retrying struct {
	Err   error
	After time.Duration
}

func (e Retrying) String() string {
	return fmt.Sprintf("retry connecting to discovery service in %v: %v", e.After, e.Err)
}
