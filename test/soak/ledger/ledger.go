package ledger

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// problemsMax is how many problems are told one by one.
const problemsMax = 40

// keyID is the number of a key.
type keyID uint32

// Ledger is all that clients were told.
type Ledger struct {
	newest atomic.Int64 // revision that somebody was answered with

	mu       sync.Mutex // guards all below
	ids      map[string]keyID
	keys     []string
	acked    []claim
	unknown  map[keyID][]claim
	reads    []read
	lists    []list
	leases   map[int64]lease
	problems []string
	more     int // problems that are not told one by one

	witness   Witness
	followers []*Follower
}

// claim is a write that a client has sent.
type claim struct {
	rev     int64 // of the answer, or the newest answered before it was sent
	lease   int64
	value   uint64
	key     keyID
	deletes bool
}

type read struct {
	rev int64
	sum uint64 // of the version, 0 if there was none
	key keyID
}

type list struct {
	prefix string
	rev    int64
	digest Digest
}

type lease struct {
	granted time.Time // before the call
	ttl     time.Duration
}

// New is the ledger of an empty store.
func New() *Ledger {
	return &Ledger{ids: make(map[string]keyID), unknown: make(map[keyID][]claim), leases: make(map[int64]lease)}
}

// Newest is the newest revision that a client was answered with. A read's is
// taken before it is sent.
func (l *Ledger) Newest() int64 { return l.newest.Load() }

func (l *Ledger) saw(rev int64) {
	for {
		have := l.newest.Load()
		if rev <= have || l.newest.CompareAndSwap(have, rev) {
			return
		}
	}
}

// Problem notes what must not happen.
func (l *Ledger) Problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem(format, args...)
}

func (l *Ledger) problem(format string, args ...any) {
	if len(l.problems) == problemsMax {
		l.more++
		return
	}
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// Problems are those so far.
func (l *Ledger) Problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more > 0 {
		return append(l.problems[:problemsMax:problemsMax], fmt.Sprintf("and %d more", l.more))
	}
	return l.problems
}

func (l *Ledger) id(key string) keyID {
	id, ok := l.ids[key]
	if !ok {
		id = keyID(len(l.keys))
		key = strings.Clone(key)
		l.ids[key] = id
		l.keys = append(l.keys, key)
	}
	return id
}

// Write is one that was sent, of one key.
type Write struct {
	l *Ledger
	c claim
}

// Put begins a write of a value.
func (l *Ledger) Put(key string, value []byte, lease int64) Write {
	return l.begin(key, claim{lease: lease, value: xxhash.Sum64(value)})
}

// Delete begins a deletion of a key that is there.
func (l *Ledger) Delete(key string) Write { return l.begin(key, claim{deletes: true}) }

func (l *Ledger) begin(key string, c claim) Write {
	c.rev = l.Newest()
	l.mu.Lock()
	defer l.mu.Unlock()
	c.key = l.id(key)
	return Write{l, c}
}

// Acked ends a write that was answered with this revision.
func (w Write) Acked(rev int64) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	if rev <= w.c.rev {
		w.l.problem("a write of %s got revision %d after somebody was answered with %d", w.l.keys[w.c.key], rev, w.c.rev)
	}
	w.l.saw(rev)
	w.c.rev = rev
	w.l.acked = append(w.l.acked, w.c)
}

// Refused ends a write that did not happen, as the store says. There is nothing
// to keep: it is a problem if it is in the log, as it is nobody's.
func (w Write) Refused() {}

// Unknown ends a write of which nobody knows.
func (w Write) Unknown() {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.unknown[w.c.key] = append(w.l.unknown[w.c.key], w.c)
}

// Read records a get: what a key was (nil: not there) at a revision. newest is
// Newest before it was sent.
func (l *Ledger) Read(key string, kv *mvccpb.KeyValue, rev, newest int64) {
	var sum uint64
	if kv != nil {
		sum = itemOf(kv).sum(key)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered("a get of "+key, rev, newest)
	l.reads = append(l.reads, read{rev: rev, sum: sum, key: l.id(key)})
}

// Answered records any other linearizable read, by its revision alone.
func (l *Ledger) Answered(what string, rev, newest int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered(what, rev, newest)
}

func (l *Ledger) answered(what string, rev, newest int64) {
	if rev < newest {
		l.problem("%s was answered at revision %d after somebody was answered with %d", what, rev, newest)
	}
	l.saw(rev)
}

// List records a whole list of a prefix at a revision.
func (l *Ledger) List(prefix string, rev int64, d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists = append(l.lists, list{prefix, rev, d})
}

// Granted records a lease; at is before the call.
func (l *Ledger) Granted(id int64, ttl time.Duration, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[id] = lease{at, ttl}
}

// Counts say how much there is to judge.
type Counts struct {
	Writes    int   `json:"writes_acknowledged"`
	Unknown   int   `json:"writes_unknown"`
	Reads     int   `json:"gets"`
	Lists     int   `json:"lists"`
	Revisions int64 `json:"revisions"`
	Events    int   `json:"events"`
	Watches   int   `json:"watches"`
}

// Counts answers how much was recorded.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Counts{Writes: len(l.acked), Reads: len(l.reads), Lists: len(l.lists), Revisions: l.witness.Last(), Events: len(l.witness.log), Watches: len(l.followers) + 1}
	for _, u := range l.unknown {
		c.Unknown += len(u)
	}
	return c
}
