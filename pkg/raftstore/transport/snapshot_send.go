package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A snapshot is a stream of frames:
//
//	first   1 byte kind, 8 bytes size of the data, then the MsgSnap as protobuf
//	chunk   1 byte kind, data
//	last    1 byte kind, 4 bytes CRC32C of all data, data
//
// Numbers are little endian. There is exactly one first and one last frame. The answer is the status of the stream, which is sent once
// the snapshot is stored.
const (
	kindFirst byte = iota + 1
	kindChunk
	kindLast
)

const (
	firstBytes = 1 + 8
	chunkBytes = 1
	lastBytes  = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SendSnapshot sends a MsgSnap and the data that open gives, with its exact size, on a connection of its own. open is called from a
// goroutine of the transport; ctx ends with the attempt. Handler.SnapshotSent is called exactly once for each call that comes before
// Close; at once with false when one to the same peer is under way. Nothing is tried a second time here: raft does that.
func (t *Transport) SendSnapshot(m *raftpb.Message, open func(ctx context.Context) (io.ReadCloser, int64, error)) {
	l := t.link(m.GetTo())
	if l == nil || !l.sending.CompareAndSwap(false, true) {
		t.reports.snapshotFailed(m.GetTo())
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.wg.Go(func() { l.sendSnapshot(m, open) })
}

func (l *link) sendSnapshot(m *raftpb.Message, open func(ctx context.Context) (io.ReadCloser, int64, error)) {
	done := SnapshotDone{Peer: types.ID(l.id), Index: m.GetSnapshot().GetMetadata().GetIndex()}
	began := time.Now()
	metrics := &l.t.metrics.snapSend
	metrics.begin(l.id)
	ctx, cancel := context.WithCancelCause(l.ctx)
	s := &snapshotSender{l: l, ctx: ctx, cancel: cancel}
	s.stall = time.AfterFunc(l.t.o.SnapshotStallTimeout, func() { cancel(errStalled) })
	err := s.run(m, open)
	if err != nil {
		err = causeOf(ctx, err)
	}
	s.stall.Stop()
	cancel(nil)
	done.Bytes, done.Took, done.Err = s.sent, time.Since(began), err
	metrics.end(done)
	if err != nil {
		l.lost(1)
		if errors.Is(err, ErrRemoved) {
			l.t.reports.selfRemoved()
		}
		done.Err = text(err)
	}
	l.t.o.OnEvent(done)
	l.sending.Store(false)
	l.t.h.SnapshotSent(l.id, err == nil)
}

// snapshotSender is one snapshot on its way.
type snapshotSender struct {
	l      *link
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer // cancels; set back whenever something got on
	stream grpc.ClientStream
	sum    uint32
	sent   int64 // of the data
}

func (s *snapshotSender) run(m *raftpb.Message, open func(ctx context.Context) (io.ReadCloser, int64, error)) error {
	data, size, err := open(s.ctx)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer data.Close()
	cc, err := s.connect()
	if err != nil {
		return err
	}
	defer cc.Close()
	first := binary.LittleEndian.AppendUint64([]byte{kindFirst}, uint64(size))
	if first, err = (proto.MarshalOptions{}).MarshalAppend(first, m); err != nil {
		return fmt.Errorf("marshal snapshot message: %w", err)
	}
	if err := s.send(bytesFrame(first), len(first)); err != nil {
		return err
	}
	began := time.Now()
	for last := false; !last; {
		if last, err = s.chunk(data, size); err != nil {
			return err
		}
		if err := s.pace(began); err != nil {
			return err
		}
	}
	s.stall.Reset(s.l.t.o.SnapshotInstallTimeout)
	if err := s.stream.CloseSend(); err != nil {
		return err
	}
	return s.verdict()
}

// connect tries the URLs in turn, beginning with the one that messages take.
func (s *snapshotSender) connect() (*grpc.ClientConn, error) {
	urls := *s.l.urls.Load()
	if e := s.l.epoch.Load(); e != nil {
		urls = append([]string{e.url}, urls...)
	}
	err := ErrUnreachable
	for _, url := range urls {
		var cc *grpc.ClientConn
		if cc, err = s.dial(url); err == nil {
			return cc, nil
		}
		if s.ctx.Err() != nil || errors.Is(err, ErrRemoved) || errors.Is(err, ErrTooManySnapshots) {
			break
		}
	}
	return nil, err
}

func (s *snapshotSender) dial(url string) (*grpc.ClientConn, error) {
	t := s.l.t
	cc, err := t.newConn(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	timer := time.AfterFunc(t.o.DialTimeout, func() { cancel(errDialTimeout) })
	if s.stream, err = t.newStream(ctx, cc, laneSnapshot, s.l.id); err == nil {
		_, err = t.acknowledged(s.stream, s.l.id)
	}
	if err == nil && !timer.Stop() {
		err = errDialTimeout
	}
	if err != nil {
		timer.Stop()
		err = fmt.Errorf("%s: %w", url, text(causeOf(ctx, fromStatus(err))))
		cancel(err)
		_ = cc.Close()
		return nil, err
	}
	return cc, nil
}

// chunk reads and sends the next piece, and says whether it was the last one.
func (s *snapshotSender) chunk(data io.Reader, size int64) (last bool, err error) {
	n := min(size-s.sent, snapshotChunkBytes)
	last = s.sent+n == size
	head := chunkBytes
	if last {
		head = lastBytes
	}
	pool := mem.DefaultBufferPool()
	space := pool.Get(head + int(n))
	b := *space
	if _, err := io.ReadFull(data, b[head:]); err != nil {
		pool.Put(space)
		return false, fmt.Errorf("read snapshot at %d of %d: %w", s.sent, size, err)
	}
	s.sum = crc32.Update(s.sum, castagnoli, b[head:])
	b[0] = kindChunk
	if last {
		b[0] = kindLast
		binary.LittleEndian.PutUint32(b[1:], s.sum)
	}
	s.sent += n
	return last, s.send(&frame{out: mem.BufferSlice{mem.NewBuffer(space, pool)}}, len(b))
}

func (s *snapshotSender) send(f *frame, size int) error {
	if err := s.stream.SendMsg(f); err == io.EOF {
		return s.verdict()
	} else if err != nil {
		return fromStatus(err)
	}
	s.l.metrics.sent.Add(float64(size))
	s.stall.Reset(s.l.t.o.SnapshotStallTimeout)
	return nil
}

// verdict is what the receiver says in the end.
func (s *snapshotSender) verdict() error {
	err := s.stream.RecvMsg(new(frame))
	switch {
	case err == nil:
		return errMalformed
	case err == io.EOF:
		return nil
	}
	return fromStatus(err)
}

// pace waits until as much time has passed as the data sent may take.
func (s *snapshotSender) pace(began time.Time) error {
	rate := s.l.t.o.SnapshotBytesPerSecond
	if rate == 0 {
		return nil
	}
	ahead := time.Duration(float64(s.sent)/float64(rate)*float64(time.Second)) - time.Since(began)
	if ahead <= 0 {
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.stall.Reset(s.l.t.o.SnapshotStallTimeout)
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
