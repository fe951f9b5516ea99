package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// receiveSnapshot is the body of a snapshot stream.
func (t *Transport) receiveSnapshot(ctx context.Context, in *incoming, s grpc.ServerStream) error {
	done := SnapshotDone{Peer: types.ID(in.key.from), Received: true}
	began := time.Now()
	metrics := &t.metrics.snapReceive
	metrics.begin(in.key.from)
	received, failed := t.metrics.from(in.key.from)
	r := &snapshotReader{s: s, received: received, stall: time.AfterFunc(t.o.SnapshotStallTimeout, func() { in.end(errStalled) }),
		timeout: t.o.SnapshotStallTimeout}
	var m *raftpb.Message
	err := s.SendHeader(t.introduce(in.key.from))
	if err == nil {
		m, err = r.first()
	}
	if err == nil {
		err = t.checkMessage(in.key, m)
	}
	if err == nil {
		done.Index = m.GetSnapshot().GetMetadata().GetIndex()
		err = t.h.ReceiveSnapshot(ctx, m, r.size, r)
	}
	if err == nil && !(r.verified && len(r.rest) == 0) {
		err = errUnread
	}
	r.close()
	done.Bytes, done.Took, done.Err = r.at, time.Since(began), err
	if err != nil {
		failed.Inc()
		select {
		case <-in.stop:
			done.Err = in.reason
		default:
			done.Err = text(err)
		}
	}
	metrics.end(done)
	t.o.OnEvent(done)
	return err
}

// snapshotReader reads the data of a snapshot stream. The last bytes are given out only after the checksum of all was found right.
type snapshotReader struct {
	s        grpc.ServerStream
	received prometheus.Counter
	stall    *time.Timer // runs while the stream is waited for
	timeout  time.Duration

	size, at int64 // at: bytes that have arrived
	sum      uint32
	f        frame
	rest     []byte // of f, not read yet
	verified bool
	err      error
}

// first reads the first frame.
func (r *snapshotReader) first() (*raftpb.Message, error) {
	var f frame
	if err := r.receive(&f); err != nil {
		return nil, err
	}
	m := new(raftpb.Message)
	if len(f.in) < firstBytes || f.in[0] != kindFirst {
		return nil, fmt.Errorf("%w: first of a snapshot", errMalformed)
	}
	r.size = int64(binary.LittleEndian.Uint64(f.in[1:]))
	if err := proto.Unmarshal(f.in[firstBytes:], m); err != nil || r.size < 0 {
		return nil, fmt.Errorf("%w: first of a snapshot of %d bytes: %v", errMalformed, r.size, err)
	}
	return m, nil
}

func (r *snapshotReader) receive(f *frame) error {
	r.stall.Reset(r.timeout)
	err := r.s.RecvMsg(f)
	r.stall.Stop()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	r.received.Add(float64(len(f.in)))
	return err
}

// Read implements io.Reader.
func (r *snapshotReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err == nil && r.verified {
			r.err = io.EOF
		}
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next takes the next frame.
func (r *snapshotReader) next() error {
	r.f.free()
	r.f = frame{pooled: true}
	if err := r.receive(&r.f); err != nil {
		return err
	}
	b, kind, sum := r.f.in, byte(0), uint32(0)
	if len(b) > 0 {
		kind = b[0]
	}
	switch {
	case kind == kindChunk:
		b = b[chunkBytes:]
	case kind == kindLast && len(b) >= lastBytes:
		sum, b = binary.LittleEndian.Uint32(b[1:]), b[lastBytes:]
	default:
		return fmt.Errorf("%w: piece of a snapshot", errMalformed)
	}
	r.sum = crc32.Update(r.sum, castagnoli, b)
	r.at += int64(len(b))
	if r.at > r.size {
		return fmt.Errorf("%w: snapshot is larger than %d bytes", errMalformed, r.size)
	}
	if kind == kindLast {
		if r.at != r.size || sum != r.sum {
			return fmt.Errorf("%w: %d of %d bytes, sum %08x, want %08x", ErrChecksum, r.at, r.size, r.sum, sum)
		}
		r.verified = true
	}
	r.rest = b
	return nil
}

func (r *snapshotReader) close() {
	r.stall.Stop()
	r.f.free()
	r.rest = nil
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
}
