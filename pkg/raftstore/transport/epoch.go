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
	streams [messageLanes]grpc.ClientStream

	ctx    context.Context // of the streams
	cancel context.CancelCauseFunc

	probe  atomic.Uint64 // to be sent next; 0: none
	echoes chan uint64
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
	for i := range e.streams {
		if e.streams[i], err = t.newStream(e.ctx, e.cc, lane(i), e.l.id); err != nil {
			return fromStatus(err)
		}
	}
	for _, s := range e.streams {
		i, err := t.acknowledged(s, e.l.id)
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
	for i := range e.streams {
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
		e.probe.Store(number)
		poke(e.l.queues[laneControl].wake)
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
	var (
		q     = e.l.queues[which]
		batch []outgoing
	)
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-q.wake:
		}
		for e.ctx.Err() == nil {
			batch = q.take(batch[:0], frameBytesMax)
			probe := uint64(0)
			if which == laneControl {
				probe = e.probe.Swap(0)
			}
			if len(batch) == 0 && probe == 0 {
				break
			}
			out, n := encodeFrame(probe, batch)
			err := e.streams[which].SendMsg(&frame{out: out})
			if err != nil {
				e.l.lost(len(batch))
				if err != io.EOF { // otherwise receive learns the reason
					e.cancel(fromStatus(err))
				}
				return
			}
			e.l.metrics.sent.Add(float64(n))
			clear(batch)
		}
	}
}

// receive takes what the peer says on a lane: echoes, and why it ends.
func (e *epoch) receive(which lane) {
	for {
		var f frame
		if err := e.streams[which].RecvMsg(&f); err != nil {
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
		select {
		case e.echoes <- binary.LittleEndian.Uint64(f.in):
		case <-e.ctx.Done():
		}
	}
}
