package script

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"
)

// pendingCall is a unary call under way, or an Observe stream.
type pendingCall struct {
	cancel   context.CancelFunc
	done     chan struct{} // closed when out is final
	out      string
	observed grpc.ServerStreamingClient[v3electionpb.LeaderResponse]
}

// begin makes a call that is not waited for. That it has reached the server is
// seen by the key that it writes, for which a script waits with a watch.
func (s *Session) begin(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) < 2 {
		return "", errors.New("want a name and a call")
	}
	c, ok := calls[d.CmdArgs[1].Key]
	if !ok {
		return "", fmt.Errorf("no call %q", d.CmdArgs[1].Key)
	}
	req, resp := c.request(), c.response()
	if err := s.parse(d.Input, 1, req); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(s.outgoing(d), callMax)
	p := &pendingCall{cancel: cancel, done: make(chan struct{})}
	s.pending[d.CmdArgs[0].Key] = p
	conn, print := s.conn, s.printer()
	go func() {
		defer close(p.done)
		defer cancel()
		if err := conn.Invoke(ctx, c.method, req, resp); err != nil {
			p.out = fault(err)
			return
		}
		p.out = print.message("", resp)
	}()
	return "", nil
}

func (s *Session) taken(d *datadriven.TestData) (*pendingCall, error) {
	if len(d.CmdArgs) == 0 || s.pending[d.CmdArgs[0].Key] == nil {
		return nil, errors.New("want the name of a call under way")
	}
	return s.pending[d.CmdArgs[0].Key], nil
}

// end waits for a call.
func (s *Session) end(d *datadriven.TestData) (string, error) {
	p, err := s.taken(d)
	if err != nil {
		return "", err
	}
	<-p.done
	delete(s.pending, d.CmdArgs[0].Key)
	return p.out, nil
}

// cancelPending gives a call up.
func (s *Session) cancelPending(d *datadriven.TestData) (string, error) {
	p, err := s.taken(d)
	if err != nil {
		return "", err
	}
	p.cancel()
	return s.end(d)
}

// observe opens an Observe stream.
func (s *Session) observe(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) != 1 {
		return "", errors.New("want a name")
	}
	req := &v3electionpb.LeaderRequest{}
	if err := s.parse(d.Input, 1, req); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := v3electionpb.NewElectionClient(s.conn).Observe(ctx, req)
	if err != nil {
		cancel()
		return "", err
	}
	p := &pendingCall{cancel: cancel, done: make(chan struct{}), observed: stream}
	close(p.done)
	s.pending[d.CmdArgs[0].Key] = p
	return "", nil
}

// observeRecv prints the next n answers of an Observe stream.
func (s *Session) observeRecv(d *datadriven.TestData) (string, error) {
	p, err := s.taken(d)
	if err != nil {
		return "", err
	}
	n, err := intArg(d, "n", 1)
	if err != nil {
		return "", err
	}
	timer := time.AfterFunc(callMax, p.cancel)
	defer timer.Stop()
	var b strings.Builder
	for range n {
		resp, err := p.observed.Recv()
		if err != nil {
			return b.String() + fault(err), nil
		}
		b.WriteString(s.printer().message("", resp))
	}
	return b.String(), nil
}
