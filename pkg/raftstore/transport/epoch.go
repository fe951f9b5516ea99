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

	probings [messageLanes]probing
}

// probing is what has come of the probes of a lane.
type probing struct {
	next   atomic.Uint64 // the probe to be sent next; 0: none
	sent   atomic.Int64  // when one was, in nanoseconds of the epoch
	frames atomic.Uint64 // how many were sent

	looked uint64 // frames at the last look; of the goroutine that looks

	mu     sync.Mutex
	number uint64 // of the last probe
	ticks  int    // looks since it was asked for; -1: answered
	rides  bool   // it waits for a frame to go with
	moved  uint64 // of the pipe, at the last look
}

// dial connects to one URL.
func (l *link) dial(url string) (*epoch, error) {
	e := &epoch{l: l, url: url}
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
	e.watch()
	_ = e.cc.Close()
	wg.Wait()
	for _, p := range e.pipes {
		p.end() // what is queued from now on is the next epoch's
	}
	return context.Cause(e.ctx)
}

// watch probes the peer until the epoch ends. All links of a process look at the same moments, so that it wakes once for them.
func (e *epoch) watch() {
	t := e.l.t
	for i := range e.probings {
		e.ask(lane(i), true)
	}
	timer := time.NewTimer(t.o.ProbeInterval + t.untilLook()) // no probe has less than its whole time
	defer timer.Stop()
	for n := 1; ; n++ {
		select {
		case <-e.ctx.Done():
			return
		case <-timer.C:
		}
		e.look(laneControl)
		if n%appendProbeFactor == 0 {
			e.look(laneAppend)
		}
		timer.Reset(t.untilLook())
	}
}

// untilLook is the time until the links look at their probes.
func (t *Transport) untilLook() time.Duration {
	return t.o.ProbeInterval - time.Since(t.began)%t.o.ProbeInterval
}

// ask has a probe sent, now or with the next frame.
func (e *epoch) ask(which lane, now bool) {
	p := &e.probings[which]
	p.mu.Lock()
	p.number++
	p.ticks, p.rides = 0, !now
	p.next.Store(p.number)
	p.mu.Unlock()
	if now {
		e.l.push(which)
	}
}

// look asks again if the last probe was answered, and ends the epoch if it was not for too long. A large frame that gets on is a sign of
// life as well. Time is counted in looks, so that a member which did not run for a while does not blame the peer.
//
// A lane of heartbeats carries a probe with the next of them; if none comes until the next look, the probe goes by itself, and its time begins.
func (e *epoch) look(which lane) {
	o, p := &e.l.t.o, &e.probings[which]
	frames := p.frames.Load()
	busy := which == laneControl && frames-p.looked >= ridingFramesMin
	p.looked = frames
	p.mu.Lock()
	answered, rides := p.ticks < 0, p.rides
	if !answered && p.next.Load() != 0 && rides {
		p.rides = false
		p.mu.Unlock()
		e.l.push(which)
		return
	}
	if moved := e.pipes[which].plain.moved.Load(); moved != p.moved {
		p.moved, p.ticks = moved, min(p.ticks, 0)
	}
	if !answered {
		p.ticks++
	}
	silent := p.ticks >= int((o.ProbeTimeout+o.ProbeInterval-1)/o.ProbeInterval)
	p.mu.Unlock()
	if answered {
		e.ask(which, !busy)
	} else if silent {
		e.cancel(errSilent)
	}
}

// answered notes an echo.
func (e *epoch) answered(which lane, number uint64) {
	p := &e.probings[which]
	p.mu.Lock()
	defer p.mu.Unlock()
	if number != p.number || p.ticks < 0 {
		return
	}
	p.ticks = -1
	if which == laneControl {
		e.l.metrics.rtt.Observe((time.Since(e.since) - time.Duration(p.sent.Load())).Seconds())
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
	probes := &e.probings[which]
	probe := probes.next.Swap(0)
	if len(p.batch) == 0 && probe == 0 {
		return false, nil
	}
	if probe != 0 {
		probes.sent.Store(int64(time.Since(e.since)))
	}
	probes.frames.Add(1)
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
		e.answered(which, binary.LittleEndian.Uint64(echo[:]))
	}
}
