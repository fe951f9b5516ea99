package raftstore

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Propose puts a command into the log and answers what applying it came to. mvcc.Result.Err is returned as the error, with the
// result beside it. Besides, the error is one of the sentinels in errors.go, mvcc.ErrNoSpace, or that of the context; after ErrTimeout,
// ErrLeaderChanged and the context's errors the command may or may not take effect.
func (s *Store) Propose(ctx context.Context, cmd Command) (mvcc.Result, error) {
	s.proposing.Add(1)
	defer s.proposed()
	if s.closing.Load() {
		return mvcc.Result{}, ErrStopped
	}
	if mvcc.Grows(cmd.Request) {
		if err := s.checkSpace(ctx, cmd); err != nil {
			return mvcc.Result{}, err
		}
	}
	return s.propose(ctx, cmd)
}

// proposed wakes Close when the last proposal is over.
func (s *Store) proposed() {
	if s.proposing.Add(-1) == 0 && s.closing.Load() {
		poke(s.drained)
	}
}

// propose is Propose without the checks that hold only for clients.
func (s *Store) propose(ctx context.Context, cmd Command) (mvcc.Result, error) {
	if s.logFull.Load() {
		return mvcc.Result{}, mvcc.ErrNoSpace
	}
	if s.committed.Load() > s.applied.Load()+applyLagMax {
		return mvcc.Result{}, ErrTooManyRequests
	}
	body := cmd.Body
	if body == nil {
		var err error
		if body, err = marshalBody(cmd); err != nil {
			return mvcc.Result{}, err
		}
	}
	id := s.nextID()
	p := frame(id, cmd.Kind, body)
	if len(p.data) > s.entryBytesMax {
		return mvcc.Result{}, ErrRequestTooLarge
	}
	w := waiterPool.Get().(*waiter)
	w.request, w.deadline = cmd.Request, s.clock.Load()+int64(s.cfg.requestTimeout())
	s.waiters.add(id, w)
	if !s.node.proposals.put(p) {
		if s.waiters.remove(id) {
			w.release()
			return mvcc.Result{}, ErrTooManyRequests
		}
	}
	select {
	case out := <-w.outcome:
		w.release()
		return out.of()
	case <-ctx.Done():
		if s.waiters.remove(id) {
			w.release()
			return mvcc.Result{}, ctx.Err()
		}
		out := <-w.outcome
		w.release()
		return out.of()
	}
}

// payloadPool holds buffers for payloads on their way to raft, which copies them.
var payloadPool = sync.Pool{New: func() any { return new([]byte) }}

// frame makes the payload of an entry.
func frame(id uint64, kind mvcc.Kind, body []byte) proposal {
	size := len(body) + frameOverheadMax
	if size > payloadPooledMax {
		return proposal{id: id, data: mvcc.Frame(make([]byte, 0, size), id, kind, body)}
	}
	buf := payloadPool.Get().(*[]byte)
	if cap(*buf) < size {
		*buf = make([]byte, 0, size)
	}
	return proposal{id: id, data: mvcc.Frame((*buf)[:0], id, kind, body), pool: buf}
}

func (o outcome) of() (mvcc.Result, error) {
	if o.err != nil {
		return mvcc.Result{}, o.err
	}
	return o.result, o.result.Err
}

// release gives the waiter back. Nobody else may know of it any more.
func (w *waiter) release() {
	w.request = nil
	waiterPool.Put(w)
}

// marshalBody is the wire form of the request's member that Kind names.
func marshalBody(cmd Command) ([]byte, error) {
	m := cmd.Request.ProtoReflect()
	field := m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(cmd.Kind))
	if field == nil || !m.Has(field) {
		return nil, fmt.Errorf("command of kind %v does not hold its request", cmd.Kind)
	}
	body, err := proto.Marshal(m.Get(field).Message().Interface())
	if err != nil {
		return nil, fmt.Errorf("marshal %v: %w", cmd.Kind, err)
	}
	return body, nil
}

// nextID is a request ID that no member and no earlier start of this one uses: two bytes of the member's ID, five of the time of
// the start, and a counter.
func (s *Store) nextID() uint64 { return s.idPrefix | s.idSuffix.Add(1)&(1<<48-1) }

// checkSpace refuses a command that grows the state while the disk is full, and raises the NOSPACE alarm when the quota does not
// allow it.
func (s *Store) checkSpace(ctx context.Context, cmd Command) error {
	if s.spaceLow.Load() {
		return mvcc.ErrNoSpace
	}
	view := s.View()
	if s.cfg.Quota.Admit(view.Size(), compact.Cost(cmd.Request)).OK {
		return nil
	}
	alarm := &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
		MemberID: s.id.member, Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}}
	for _, a := range view.Alarms() {
		if a.GetMemberID() == s.id.member && a.GetAlarm() == pb.AlarmType_NOSPACE {
			return mvcc.ErrNoSpace
		}
	}
	if _, err := s.propose(ctx, Command{Kind: mvcc.KindAlarm, Request: alarm}); err != nil {
		return fmt.Errorf("raise alarm: %w", err)
	}
	return mvcc.ErrNoSpace
}
