package watchcache

import (
	"bytes"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// topic is what is known of one resource prefix (/registry/pods/) while somebody
// watches below it: a sub-log, and the watchers by what they match. Watchers of
// anything wider, or outside of any topic, are in the hub's root index and read
// the hub's log.
type topic struct {
	prefix string
	index  index // guarded by Hub.mu

	watchers int    // guarded by Hub.mu
	events   uint64 // routed since the topic was made; guarded by Hub.mu

	log   eventLog      // guarded by Hub.logMu
	start mvcc.Revision // log has every event of the topic from here on, as far as the window goes; guarded by Hub.logMu
	dead  bool          // removed from the hub; guarded by Hub.logMu
}

// topicLen returns the length of the topic prefix of key, 0 if it has none: the
// first two segments ("/registry/pods/"), or three when the second is a group
// ("/registry/stable.example.com/crontabs/"). Nothing but speed depends on it.
func topicLen(key []byte) int {
	if len(key) == 0 || key[0] != '/' {
		return 0
	}
	i := bytes.IndexByte(key[1:], '/')
	if i < 0 {
		return 0
	}
	second := i + 2
	j := bytes.IndexByte(key[second:], '/')
	if j < 0 {
		return 0
	}
	end := second + j + 1
	if bytes.IndexByte(key[second:end], '.') < 0 {
		return end
	}
	k := bytes.IndexByte(key[end:], '/')
	if k < 0 {
		return 0
	}
	return end + k + 1
}

// topicOfRange returns the length of the topic prefix which all keys of the range
// share, 0 if there is none. end is nil for a single key, empty for no bound.
func topicOfRange(key, end []byte) int {
	n := topicLen(key)
	if n == 0 || end == nil {
		return n
	}
	if len(end) == 0 {
		return 0
	}
	// The prefix ends in '/': its keys are those before stem+"0".
	stem := key[:n-1]
	if !bytes.HasPrefix(end, stem) {
		if bytes.Compare(end, stem) < 0 {
			return n
		}
		return 0
	}
	if rest := end[n-1:]; len(rest) == 0 || rest[0] < '0' || string(rest) == "0" {
		return n
	}
	return 0
}
