package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// epoch is one connection to a peer and the pipes that belong to it, from the moment both sides know each other to their end. What was queued
// in it arrives in order, and without holes up to its end.
type epoch struct {
	l       *link
	url     string
	version string
	since   time.Time
	cc      *grpc.ClientConn
	streams [messageLanes]grpc.ClientStream
	pipes   [messageLanes]*pipe

	ctx    context.Context // of the streams
	cancel context.CancelCauseFunc

	probe  [messageLanes]atomic.Uint64 // to be sent next; 0: none
	echoes [messageLanes]chan uint64
}

// dial connects to one URL.
func (l *link) dial(url string) (*epoch, error) {
	e := &epoch{l: l, url: url}
	for i := range e.echoes {
		e.echoes[i] = make(chan uint64, 1)
	}
	e.ctx, e.cancel = context.WithCancelCause(l.ctx)
	timer := time.AfterFunc(l.t.o.DialTimeout, func() { e.cancel(errDialTimeout) })
	var tokens [messageLanes]string
	err := e.connect(&tokens)
	if err == nil && timer.Stop() {
		timer.Reset(l.t.o.DialTimeout) // again for the pipes
		err = e.connectPipes(tokens)
	}
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

func (e *epoch) connect(tokens *[messageLanes]string) (err error) {
	t := e.l.t
	if e.cc, err = t.newConn(e.url); err != nil {
		return err
	}
	for i := range e.streams {
		if e.streams[i], err = t.newStream(e.ctx, e.cc, lane(i), e.l.id); err != nil {
			return fromStatus(err)
		}
	}
	for which, s := range e.streams {
		i, err := t.acknowledged(s, e.l.id)
		if err != nil {
			return err
		}
		e.version, tokens[which] = i.version, i.pipe
	}
	return nil
}

func (e *epoch) connectPipes(tokens [messageLanes]string) error {
	var (
		wg   sync.WaitGroup
		errs [messageLanes]error
	)
	for i := range e.pipes {
		wg.Go(func() {
			if e.pipes[i], errs[i] = e.l.t.dialPipe(e.ctx, e.url, tokens[i]); errs[i] != nil {
				e.cancel(errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// run sends and probes until the epoch ends, and says why it did.
func (e *epoch) run() error {
	var wg sync.WaitGroup
	for i := range e.streams {
		wg.Go(func() { e.send(lane(i)) })
		wg.Go(func() { e.listen(lane(i)) })
		wg.Go(func() { e.hear(lane(i)) })
	}
	wg.Go(func() { e.watch(laneAppend, appendProbeFactor) })
	e.watch(laneControl, 1)
	_ = e.cc.Close()
	wg.Wait()
	for _, p := range e.pipes {
		p.end() // what is queued from now on is the next epoch's
	}
	return context.Cause(e.ctx)
}

// watch probes the peer on a lane, which times longer than the options say. A large frame that gets on is a sign of life as well. Time is counted in ticks of its own, so that a member which did not run for a while does not blame the peer.
func (e *epoch) watch(which lane, times time.Duration) {
	o := &e.l.t.o
	ticker := time.NewTicker(times * o.ProbeInterval)
	defer ticker.Stop()
	ticksMax := int((o.ProbeTimeout + o.ProbeInterval - 1) / o.ProbeInterval)
	var (
		number uint64 // of the last probe
		asked  time.Time
		ticks  int // since then; -1: answered
		moved  uint64
	)
	ask := func() {
		number, asked, ticks = number+1, time.Now(), 0
		e.probe[which].Store(number)
		e.l.push(which)
	}
	ask()
	for {
		select {
		case <-e.ctx.Done():
			return
		case got := <-e.echoes[which]:
			if got == number && ticks >= 0 {
				if which == laneControl {
					e.l.metrics.rtt.Observe(time.Since(asked).Seconds())
				}
				ticks = -1
			}
		case <-ticker.C:
			if ticks < 0 {
				ask()
				continue
			}
			if now := e.pipes[which].plain.moved.Load(); now != moved {
				moved, ticks = now, 0
			}
			if ticks++; ticks >= ticksMax {
				e.cancel(errSilent)
			}
		}
	}
}

// send brings one lane's queue to the peer where sendNow could not. It blocks where the peer does not keep up.
func (e *epoch) send(which lane) {
	q, p := e.l.queues[which], e.pipes[which]
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-q.wake:
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return
		}
		err := p.plain.flush()
		p.closed = err != nil
		for sent := true; err == nil && sent && e.ctx.Err() == nil; {
			sent, err = e.frame(which, false)
		}
		p.mu.Unlock()
		if err != nil {
			e.breaks(err)
			return
		}
	}
}

// sendNow sends a lane's queue on the goroutine of the caller if that is quick: little waits, nobody else is sending, and the kernel takes it
// at once. It is false if something is left to do for the lane's sender. It does not wait. (Whoever puts something into the queue while
// another one is sending wakes the lane's sender, so nothing stays behind.)
func (e *epoch) sendNow(which lane) bool {
	q, p := e.l.queues[which], e.pipes[which]
	if p.plain.raw == nil || q.size() > sendNowBytesMax || !p.mu.TryLock() {
		return false
	}
	defer p.mu.Unlock()
	if p.closed || e.ctx.Err() != nil || !p.plain.ready() {
		return false
	}
	if _, err := e.frame(which, true); err != nil {
		e.breaks(err)
		return true
	}
	return p.plain.ready()
}

// frame sends the next frame of a lane; sent is false if there is none. The caller holds the pipe's mu.
func (e *epoch) frame(which lane, now bool) (sent bool, err error) {
	p := e.pipes[which]
	p.batch = e.l.queues[which].take(p.batch[:0], frameBytesMax)
	defer clear(p.batch)
	probe := e.probe[which].Swap(0)
	if len(p.batch) == 0 && probe == 0 {
		return false, nil
	}
	n, err := p.write(probe, p.batch, now)
	if err != nil {
		e.l.lost(len(p.batch))
		return false, err
	}
	e.l.metrics.sent.Add(float64(n))
	return true, nil
}

// breaks ends the epoch because a pipe failed. The stream beside it knows better why, if the peer could tell, and comes first then.
func (e *epoch) breaks(err error) {
	time.AfterFunc(reasonPatience, func() { e.cancel(err) })
}

// listen waits for the reason why the peer ends a lane.
func (e *epoch) listen(which lane) {
	err := e.streams[which].RecvMsg(new(frame))
	switch err {
	case nil:
		err = errMalformed
	case io.EOF:
		err = errEnded
	}
	e.cancel(fromStatus(err))
}

// hear takes the echoes that come back on a pipe.
func (e *epoch) hear(which lane) {
	var echo [probeBytes]byte
	for {
		if _, err := io.ReadFull(e.pipes[which].conn, echo[:]); err != nil {
			e.breaks(errEnded)
			return
		}
		select {
		case e.echoes[which] <- binary.LittleEndian.Uint64(echo[:]):
		case <-e.ctx.Done():
			return
		}
	}
}
