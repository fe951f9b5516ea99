package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// epoch is one connection to a peer, from the moment both sides know each other to its end. What was queued in it arrives in order,
// and without holes up to its end.
type epoch struct {
	l       *link
	url     string
	version string
	since   time.Time
	cc      *grpc.ClientConn
	lanes   [messageLanes]outLane

	ctx    context.Context // of the streams
	cancel context.CancelCauseFunc

	echoes chan uint64 // of the control lane
}

// outLane is the sending end of a lane.
type outLane struct {
	stream grpc.ClientStream
	probe  atomic.Uint64         // goes with the next frame; 0: none
	asked  atomic.Pointer[probe] // the last one that went
	read   atomic.Int64          // bytes that the peer has read, at least

	mu    sync.Mutex // held by who takes from the queue and sends
	sent  int64      // bytes
	batch []outgoing
}

// probe is one on its way. Its echo says that all before it was read.
type probe struct {
	number uint64
	sent   int64
}

// dial connects to one URL.
func (l *link) dial(url string) (*epoch, error) {
	e := &epoch{l: l, url: url, echoes: make(chan uint64, 1)}
	e.ctx, e.cancel = context.WithCancelCause(l.ctx)
	timer := time.AfterFunc(l.t.o.DialTimeout, func() { e.cancel(errDialTimeout) })
	err := e.connect()
	if err == nil && !timer.Stop() {
		err = errDialTimeout
	}
	if err != nil {
		timer.Stop()
		err = causeOf(e.ctx, err)
		e.cancel(err)
		if e.cc != nil {
			_ = e.cc.Close()
		}
		return nil, fmt.Errorf("%s: %w", url, text(err))
	}
	e.since = time.Now()
	return e, nil
}

func (e *epoch) connect() (err error) {
	t := e.l.t
	if e.cc, err = t.newConn(e.url); err != nil {
		return err
	}
	for i := range e.lanes {
		if e.lanes[i].stream, err = t.newStream(e.ctx, e.cc, lane(i), e.l.id); err != nil {
			return fromStatus(err)
		}
	}
	for i := range e.lanes {
		i, err := t.acknowledged(e.lanes[i].stream, e.l.id)
		if err != nil {
			return err
		}
		e.version = i.version
	}
	return nil
}

// run sends and probes until the epoch ends, and says why it did.
func (e *epoch) run() error {
	var wg sync.WaitGroup
	for i := range e.lanes {
		wg.Go(func() { e.send(lane(i)) })
		wg.Go(func() { e.receive(lane(i)) })
	}
	e.watch()
	_ = e.cc.Close()
	wg.Wait()
	return context.Cause(e.ctx)
}

// watch probes the peer. Time is counted in ticks of its own, so that a member which did not run for a while does not blame the peer.
func (e *epoch) watch() {
	o := &e.l.t.o
	ticker := time.NewTicker(o.ProbeInterval)
	defer ticker.Stop()
	ticksMax := int((o.ProbeTimeout + o.ProbeInterval - 1) / o.ProbeInterval)
	var (
		number uint64 // of the last probe
		asked  time.Time
		ticks  int // since then; -1: answered
	)
	ask := func() {
		number, asked, ticks = number+1, time.Now(), 0
		e.lanes[laneControl].probe.Store(number)
		poke(e.l.queues[laneControl].wake)
		e.lanes[laneAppend].probe.Store(number) // if there is a frame: it tells sendNow that the peer reads
	}
	ask()
	for {
		select {
		case <-e.ctx.Done():
			return
		case got := <-e.echoes:
			if got == number && ticks >= 0 {
				e.l.metrics.rtt.Observe(time.Since(asked).Seconds())
				ticks = -1
			}
		case <-ticker.C:
			if ticks < 0 {
				ask()
				continue
			}
			if ticks++; ticks >= ticksMax {
				e.cancel(errSilent)
			}
		}
	}
}

// send brings one lane's queue to the peer. It blocks where the peer does not keep up.
func (e *epoch) send(which lane) {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.l.queues[which].wake:
		}
		e.lanes[which].mu.Lock()
		for e.ctx.Err() == nil && e.sendFrame(which) {
		}
		e.lanes[which].mu.Unlock()
	}
}

// sendNow sends what waits for a lane from here, without waking the goroutine whose work it is. It does not block: gRPC takes more than
// unreadBytesMax without the peer having read any of it. False: it would, or something is left to somebody else.
func (e *epoch) sendNow(which lane) bool {
	l, q := &e.lanes[which], e.l.queues[which]
	if e.ctx.Err() != nil || !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	if l.sent-l.read.Load()+int64(q.size()) > unreadBytesMax {
		return false
	}
	e.sendFrame(which)
	return q.size() == 0 // what came meanwhile found the lock held
}

// sendFrame sends one frame of what waits, and says whether there was anything. The caller holds the lane's mu.
func (e *epoch) sendFrame(which lane) bool {
	l := &e.lanes[which]
	l.batch = e.l.queues[which].take(l.batch[:0], frameBytesMax)
	number := uint64(0)
	if len(l.batch) > 0 || which == laneControl {
		number = l.probe.Swap(0)
	}
	if len(l.batch) == 0 && number == 0 {
		return false
	}
	out, n := encodeFrame(number, l.batch)
	l.sent += int64(n)
	if number != 0 {
		l.asked.Store(&probe{number, l.sent})
	}
	err := l.stream.SendMsg(&frame{out: out})
	if err != nil {
		e.l.lost(len(l.batch))
		if err != io.EOF { // otherwise receive learns the reason
			e.cancel(fromStatus(err))
		}
		return false
	}
	e.l.metrics.sent.Add(float64(n))
	clear(l.batch)
	return true
}

// receive takes what the peer says on a lane: echoes, and why it ends.
func (e *epoch) receive(which lane) {
	for {
		var f frame
		if err := e.lanes[which].stream.RecvMsg(&f); err != nil {
			if err == io.EOF {
				err = errEnded
			}
			e.cancel(fromStatus(err))
			return
		}
		if len(f.in) != probeBytes {
			e.cancel(errMalformed)
			return
		}
		number := binary.LittleEndian.Uint64(f.in)
		if asked := e.lanes[which].asked.Load(); asked != nil && asked.number == number {
			e.lanes[which].read.Store(asked.sent)
		}
		if which != laneControl {
			continue
		}
		select {
		case e.echoes <- number:
		case <-e.ctx.Done():
		}
	}
}
