package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
)

// incomingKey names what a member may have one of.
type incomingKey struct {
	from uint64
	lane lane
}

// incoming is one stream from a peer. Its body runs in a goroutine of its own, because what it may wait for, gRPC's RecvMsg, is ended only
// by returning from gRPC's handler.
type incoming struct {
	key  incomingKey
	stop chan struct{} // closed by end
	done chan struct{} // closed when the body has returned

	once   sync.Once
	reason error // why it was ended; set before stop is closed
}

// end makes the stream fail with err.
func (in *incoming) end(err error) {
	in.once.Do(func() {
		in.reason = err
		close(in.stop)
	})
}

// begin enters a stream. An older one of the same member and lane is ended and waited for, so that messages stay in order.
func (t *Transport) begin(key incomingKey) (*incoming, error) {
	in := &incoming{key: key, stop: make(chan struct{}), done: make(chan struct{})}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, ErrClosed
	}
	old := t.incoming[key]
	if key.lane == laneSnapshot && old == nil {
		others := 0
		for k := range t.incoming {
			if k.lane == laneSnapshot {
				others++
			}
		}
		if others >= t.o.SnapshotsReceivedMax {
			t.mu.Unlock()
			return nil, ErrTooManySnapshots
		}
	}
	t.incoming[key] = in
	t.wg.Add(1)
	t.mu.Unlock()
	if old != nil {
		old.end(errReplaced)
		<-old.done
	}
	return in, nil
}

// finish takes a stream out.
func (t *Transport) finish(in *incoming) {
	t.mu.Lock()
	if t.incoming[in.key] == in {
		delete(t.incoming, in.key)
		if t.incoming[incomingKey{in.key.from, laneControl}] == nil && t.incoming[incomingKey{in.key.from, laneAppend}] == nil {
			t.dropRemote(in.key.from)
		}
	}
	t.mu.Unlock()
	close(in.done)
	t.wg.Done()
}

// handle is gRPC's handler of a lane. The body answers with the header once it takes the stream.
func (t *Transport) handle(which lane, body func(context.Context, *incoming, grpc.ServerStream) error) grpc.StreamHandler {
	return func(_ any, s grpc.ServerStream) error {
		i, err := t.admit(s.Context())
		if err != nil {
			return err
		}
		if which != laneSnapshot {
			t.addRemote(i)
		}
		in, err := t.begin(incomingKey{i.from, which})
		if err != nil {
			return toStatus(err)
		}
		if l := t.link(i.from); l != nil && which == laneControl {
			poke(l.kick) // whoever connects can be connected to
		}
		ctx, cancel := context.WithCancelCause(s.Context())
		result := make(chan error, 1)
		go func() {
			defer t.finish(in)
			err := t.h.Refuses(i.from) // again: from here on a change of the membership finds the stream
			if err == nil {
				err = body(ctx, in, s)
			}
			result <- err
		}()
		select {
		case err = <-result:
		case <-in.stop:
			err = in.reason
		}
		cancel(err)
		return toStatus(err)
	}
}

// takeFrame takes the messages of a frame, after answering its probe.
func (t *Transport) takeFrame(in *incoming, c net.Conn, b []byte) error {
	r, err := newFrameReader(b)
	if err != nil {
		return err
	}
	if r.probe != 0 {
		echo := binary.LittleEndian.AppendUint64(make([]byte, 0, probeBytes), r.probe)
		if _, err := c.Write(echo); err != nil {
			return err
		}
	}
	any, err := t.handOn(in, &r)
	if any {
		t.h.Delivered()
	}
	return err
}

// handOn hands the messages of a frame on, and says whether there was one.
func (t *Transport) handOn(in *incoming, r *frameReader) (any bool, err error) {
	for {
		m, err := r.next()
		if err == io.EOF {
			return any, nil
		}
		if err == nil {
			err = t.checkMessage(in.key, m)
		}
		if err != nil {
			return any, err
		}
		select {
		case <-in.stop:
			return any, in.reason
		default:
		}
		if err := t.h.Message(m, in.stop); err != nil {
			return any, err
		}
		any = true
	}
}

// passedOn says which messages come from somebody else than their From: followers pass on to the leader what is asked of a leader. A
// former leader gets proposals and read indexes of those who do not know yet; a request to hand leadership over is from the member that
// shall lead.
func passedOn(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgProp, raftpb.MsgReadIndex, raftpb.MsgTransferLeader:
		return true
	}
	return false
}

// checkMessage refuses a message that is not from the one who sends it, unless it may be passed on.
func (t *Transport) checkMessage(key incomingKey, m *raftpb.Message) error {
	if m.Type == nil || m.GetTo() != t.o.Member || (m.GetFrom() != key.from && !passedOn(m)) {
		return fmt.Errorf("%w: %v from %s to %s on a stream of %s", errMalformed, m.GetType(), types.ID(m.GetFrom()), types.ID(m.GetTo()), types.ID(key.from))
	}
	if (m.GetType() == raftpb.MsgSnap) != (key.lane == laneSnapshot) {
		return fmt.Errorf("%w: %v on lane %s", errMalformed, m.GetType(), key.lane)
	}
	if m.GetType() == raftpb.MsgProp && len(m.GetEntries()) == 0 {
		return fmt.Errorf("%w: MsgProp without entries", errMalformed) // raft panics at it
	}
	return nil
}
