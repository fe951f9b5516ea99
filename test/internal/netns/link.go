package netns

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// queueMax is the most frames that wait in one direction.
const queueMax = 4096

// Fault is what happens to the frames of one direction. The zero Fault is a
// good link.
type Fault struct {
	Loss    float64       // the share of frames that are lost, 0 to 1
	Delay   time.Duration // of each frame
	Jitter  time.Duration // at most so much more, evenly spread; the order is kept
	Reorder float64       // the share of frames that go without the delay, and so overtake
}

// Cut is a direction that nothing gets through.
var Cut = Fault{Loss: 1}

func (f Fault) String() string {
	return fmt.Sprintf("loss %g, delay %v+%v, reorder %g", f.Loss, f.Delay, f.Jitter, f.Reorder)
}

// Counters count the frames of one direction.
type Counters struct {
	Delivered, Dropped uint64
}

// link is one direction from a host to another.
type link struct {
	net *Net
	to  *Host

	mu      sync.Mutex
	fault   Fault
	dice    *rand.Rand
	count   Counters
	last    time.Time      // when the latest frame in the queue is due
	waiting int            // in the queue, or being written
	queue   chan lateFrame // made by the first delay
	done    chan struct{}
	sender  sync.WaitGroup
}

type lateFrame struct {
	bytes []byte
	due   time.Time
}

func newLink(n *Net, to *Host, seed uint64) *link {
	return &link{net: n, to: to, dice: rand.New(rand.NewPCG(seed, 0)), done: make(chan struct{})}
}

func (l *link) set(f Fault) {
	l.mu.Lock()
	l.fault = f
	l.mu.Unlock()
}

func (l *link) counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// send brings a frame on its way. frame is only good until send returns.
func (l *link) send(frame []byte) {
	l.mu.Lock()
	f := l.fault
	lost := f.Loss > 0 && l.dice.Float64() < f.Loss
	overtakes := f.Reorder > 0 && l.dice.Float64() < f.Reorder
	queued := !lost && !overtakes && (f.Delay+f.Jitter > 0 || l.waiting > 0)
	switch {
	case lost, queued && !l.enqueue(frame, f):
		l.count.Dropped++
	case !queued:
		l.write(frame)
	}
	l.mu.Unlock()
	l.net.signal()
}

// enqueue says whether there was room. l.mu is held.
func (l *link) enqueue(frame []byte, f Fault) bool {
	if l.waiting == queueMax {
		return false
	}
	if l.queue == nil {
		l.queue = make(chan lateFrame, queueMax)
		l.sender.Go(l.run)
	}
	due := time.Now().Add(f.Delay)
	if f.Jitter > 0 {
		due = due.Add(time.Duration(l.dice.Int64N(int64(f.Jitter))))
	}
	if due.Before(l.last) {
		due = l.last
	}
	l.last = due
	l.waiting++
	l.queue <- lateFrame{append([]byte(nil), frame...), due}
	return true
}

// run sends what is in the queue, when it is due.
func (l *link) run() {
	for {
		select {
		case f := <-l.queue:
			select {
			case <-time.After(time.Until(f.due)):
			case <-l.done:
				return
			}
			l.mu.Lock()
			if l.fault == Cut {
				l.count.Dropped++
			} else {
				l.write(f.bytes)
			}
			l.waiting--
			l.mu.Unlock()
			l.net.signal()
		case <-l.done:
			return
		}
	}
}

// write hands a frame to the other host. l.mu is held, so that nothing is
// written by a Fault that was replaced.
func (l *link) write(frame []byte) {
	if _, err := l.to.port.Write(frame); err != nil {
		l.count.Dropped++
		return
	}
	l.count.Delivered++
}

func (l *link) close() {
	close(l.done)
	l.sender.Wait()
}
