package raftstore

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Propose puts a command into the log and answers what applying it came to. mvcc.Result.Err is returned as the error, with the
// result beside it. Besides, the error is one of the sentinels in errors.go, mvcc.ErrNoSpace, or that of the context; after ErrTimeout,
// ErrLeaderChanged and the context's errors the command may or may not take effect.
func (s *Store) Propose(ctx context.Context, cmd Command) (res mvcc.Result, err error) {
	err = s.ProposeTo(ctx, &cmd, &res)
	return res, err
}

// ProposeTo is Propose for callers with little stack to spare (see doc.go of etcdapi): it fills in res, also when it answers res.Err.
func (s *Store) ProposeTo(ctx context.Context, cmd *Command, res *mvcc.Result) (err error) {
	s.proposing.Add(1)
	if s.closing.Load() {
		err = ErrStopped
	} else if mvcc.MayGrow(cmd.Request) {
		err = s.quota.admit(ctx, cmd.Request)
	} else if cmd.Request.Compaction != nil {
		err = s.compactedBefore(cmd.Request.Compaction, res)
	}
	if err == nil {
		err = s.propose(ctx, cmd, res)
	}
	if s.proposing.Add(-1) == 0 && s.closing.Load() {
		poke(s.drained) // wakes Close
	}
	return err
}

// compactedBefore answers a compaction that has nothing to do which was not done: of several API servers one compacts, and what the others ask
// for costs no entry of the log. The answer cannot change any more, as the compacted revision only rises.
func (s *Store) compactedBefore(r *pb.CompactionRequest, res *mvcc.Result) error {
	v := s.View()
	if mvcc.Revision(r.GetRevision()) > v.Compacted() || len(v.Alarms()) > 0 { // an alarm may have another answer
		return nil
	}
	*res = mvcc.Result{Revision: v.Revision(), Err: mvcc.ErrCompacted}
	return res.Err
}

// propose is ProposeTo without the checks that hold only for clients.
func (s *Store) propose(ctx context.Context, cmd *Command, res *mvcc.Result) error {
	w, err := s.submit(cmd)
	if err != nil {
		return err
	}
	if err = s.await(ctx, w); err == nil {
		if err = w.outcome.err; err == nil {
			*res = w.outcome.result
			err = res.Err
		}
	}
	s.waiters.put(w)
	return err
}

// proposeOwn proposes what no client asked for.
func (s *Store) proposeOwn(ctx context.Context, cmd Command) error {
	var res mvcc.Result
	return s.propose(ctx, &cmd, &res)
}

// submit puts a command into the queue and answers who waits for it.
func (s *Store) submit(cmd *Command) (*waiter, error) {
	w := s.waiters.get()
	err := s.frame(cmd, w)
	if err == nil {
		err = s.enqueue(w)
	}
	if err != nil {
		s.waiters.put(w)
		return nil, err
	}
	return w, nil
}

func (s *Store) enqueue(w *waiter) error {
	s.waiters.add(w)
	if !s.node.proposals.leave(w.proposal) && s.waiters.remove(w.id) {
		return ErrTooManyRequests
	}
	if !s.node.pace.holds(s.node.proposals.len()) {
		poke(s.node.wake)
	}
	return nil
}

// frame makes the proposal of a command, unless it cannot be taken now.
func (s *Store) frame(cmd *Command, w *waiter) error {
	if s.logFull.Load() {
		return mvcc.ErrNoSpace
	}
	if s.committed.Load() > s.applied.Load()+applyLagMax {
		return ErrTooManyRequests
	}
	body := cmd.Body
	if g := cmd.Request.LeaseGrant; g != nil && g.TTL < s.leases.ttlMin {
		g.TTL, body = s.leases.ttlMin, nil
	}
	if body == nil {
		var err error
		if body, err = marshalBody(*cmd); err != nil {
			return err
		}
	}
	w.id, w.request, w.trace, w.deadline = s.nextID(), cmd.Request, cmd.Trace, s.clock.Load()+int64(s.cfg.requestTimeout())
	buf := payload(len(body)+frameOverheadMax, &w.proposal)
	w.data = mvcc.Frame(buf, w.id, cmd.Kind, body)
	if cmd.Kind == mvcc.KindLeaseCheckpoint {
		w.data = mvcc.AppendTermOf(w.data, cmd.Request)
	}
	size := len(w.data) + requestHeaderBytes // the limit is on what etcd's entry would be
	if cmd.Auth != (auth.Info{}) {
		var err error
		if w.data, err = mvcc.AppendInfo(w.data, cmd.Auth); err != nil {
			return err
		}
		size = len(w.data)
		cmd.Request.Header = &pb.RequestHeader{Username: cmd.Auth.Username, AuthRevision: cmd.Auth.Revision}
	} else if cmd.Request.Header != nil { // what is applied here has to be what is in the log
		cmd.Request.Header = nil
	}
	if size > s.entryBytesMax {
		return ErrRequestTooLarge
	}
	return nil
}

// await is nil when the waiter has its outcome, and the context's error when the caller took the waiter back.
func (s *Store) await(ctx context.Context, w *waiter) error {
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	if s.waiters.remove(w.id) {
		return ctx.Err()
	}
	<-w.done
	return nil
}

// payloadPool holds buffers for payloads on their way to raft, which copies them.
var payloadPool = sync.Pool{New: func() any { return new([]byte) }}

// payload is an empty buffer for a payload of that size; p says where it goes back to.
func payload(size int, p *proposal) []byte {
	if size > payloadPooledMax {
		return make([]byte, 0, size)
	}
	p.pool = payloadPool.Get().(*[]byte)
	if cap(*p.pool) < size {
		*p.pool = make([]byte, 0, size)
	}
	return (*p.pool)[:0]
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

// nextID is a request ID that no member and no earlier start of this one uses: each start counts from a random number on. An entry with the ID
// of a call that waits here is applied as that call's request, so two that are under way must never have the same. (A time would not do: a
// machine without a battery begins at the same one again.)
func (s *Store) nextID() uint64 { return s.lastID.Add(1) }
