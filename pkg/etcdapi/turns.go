package etcdapi

import (
	"sync/atomic"
	"time"
)

// turns are what large writes to sockets wait for, one for every two processors:
// large answers leave the other one to everything else. With all of them at it, a
// request that has arrived, and a write whose fsync has returned, stand behind
// every list that is being sent: the scheduler looks at the network, and at what
// comes back from system calls, only now and then while it has something to run.
//
// Where clients, or other programs, have the rest of the processors, that is not
// enough: then a thread that is to run waits for the next tick of the kernel's
// clock behind one that sends. So while several wait for a turn and commands are
// being applied, a turn rests after each turnSpendMax for turnRest. Lists that
// nobody writes beside, and one alone, go on without.
type turns struct {
	free     chan *turn
	waiting  atomic.Int32
	revision func() int64 // of the store
}

// turn belongs to who has taken it.
type turn struct {
	spent    time.Duration // since it was last looked at whether to rest
	revision int64         // of the store then
	still    int           // for how many such looks it has not moved
}

// newTurns makes n turns. revision is called by who holds one.
func newTurns(n int, revision func() int64) *turns {
	t := &turns{free: make(chan *turn, n), revision: revision}
	for range n {
		t.free <- &turn{still: turnStillMax, revision: revision()}
	}
	return t
}

// take waits for a turn.
func (t *turns) take() *turn {
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	return <-t.free
}

// end gives back a turn that was had since began.
func (t *turns) end(x *turn, began time.Time) {
	if x.rests(time.Since(began), t.revision) && t.waiting.Load() > 0 {
		time.Sleep(turnRest)
	}
	t.free <- x
}

// rests says, after so much more was spent, whether it is time to rest.
func (x *turn) rests(spent time.Duration, revision func() int64) bool {
	if x.spent += spent; x.spent < turnSpendMax {
		return false
	}
	x.spent = 0
	x.still++
	if now := revision(); now != x.revision {
		x.revision, x.still = now, 0
	}
	return x.still < turnStillMax
}
