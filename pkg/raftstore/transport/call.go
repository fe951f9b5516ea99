package transport

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Call asks a member a question and waits for the answer, on the connection that messages use: for what must be done by the leader, such
// as renewing a lease, or asked of every member, such as a hash. To a member that was just learned of it waits for the first attempt to
// connect. It fails with ErrUnreachable if there is no connection, with an error of the table in errors.go if it is refused, and with
// what the other side's Handler.Call returned as a gRPC status. A call that failed for another reason than these may have been carried
// out.
func (t *Transport) Call(ctx context.Context, id uint64, name string, request []byte) ([]byte, error) {
	if name == "" || len(name) > callNameBytesMax {
		panic(fmt.Sprintf("transport: name of call %q", name))
	}
	l := t.link(id)
	if l == nil {
		return nil, ErrUnreachable
	}
	e := l.awaitEpoch(ctx)
	if e == nil {
		return nil, ErrUnreachable
	}
	md := t.introduce(id)
	md.Set(keyCall, name)
	var answer frame
	if err := e.cc.Invoke(metadata.NewOutgoingContext(ctx, md), callMethod, bytesFrame(request), &answer); err != nil {
		return nil, fromStatus(err)
	}
	return answer.in, nil
}

// handleCall is gRPC's handler of calls.
func (t *Transport) handleCall(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	i, err := t.admit(ctx)
	if err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	name := md.Get(keyCall)
	var request frame
	if err := decode(&request); err != nil {
		return nil, err
	}
	if len(name) != 1 || len(name[0]) > callNameBytesMax {
		return nil, toStatus(errMalformed)
	}
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.wg.Add(1)
	}
	t.mu.Unlock()
	if closed {
		return nil, toStatus(ErrClosed)
	}
	defer t.wg.Done()
	answer, err := t.h.Call(ctx, i.from, name[0], request.in)
	if err != nil {
		return nil, toStatus(err)
	}
	return bytesFrame(answer), nil
}
