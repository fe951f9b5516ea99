package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/member"
)

// server is what is measured: one process, or several members that replicate.
// What it uses is the sum of them.
type server struct {
	name    string
	members []*member.Member
	conn    []*grpc.ClientConn // to one of the members, the first or see through
}

func newServer(name, dir string, members int) (*server, error) {
	m, err := newMembers(name, dir, members)
	return &server{name: name, members: m}, err
}

// start runs the program and returns how long it took until all have answered.
func (s *server) start() (time.Duration, error) {
	begin := time.Now()
	for _, m := range s.members {
		if err := m.Launch(); err != nil {
			return 0, err
		}
	}
	for _, m := range s.members {
		if err := m.Connect(connections); err != nil {
			return 0, err
		}
	}
	s.through(s.members[0])
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := s.answers(ctx)
	return time.Since(begin), err
}

// answers waits until each member answers a linearizable read.
func (s *server) answers(ctx context.Context) error {
	for _, m := range s.members {
		if err := answers(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// through has the rows use this member.
func (s *server) through(m *member.Member) { s.conn = m.Conn }

func (s *server) kv(worker int) pb.KVClient { return pb.NewKVClient(s.conn[worker%len(s.conn)]) }

// kill is kill -9.
func (s *server) kill() {
	s.conn = nil
	for _, m := range s.members {
		m.End(syscall.SIGKILL)
	}
}

// pause stops the threads of the processes while another server is measured, so
// that their background work does not fall into the other's figures.
func (s *server) pause() error { return s.signal(syscall.SIGSTOP) }

// resume ends a pause, and leaves a moment for timers that fire at once; what
// members think of each other may have changed meanwhile.
func (s *server) resume(ctx context.Context) error {
	err := s.signal(syscall.SIGCONT)
	time.Sleep(100 * time.Millisecond)
	if err != nil || len(s.members) == 1 {
		return err
	}
	return s.answers(ctx)
}

func (s *server) signal(sig syscall.Signal) (err error) {
	for _, m := range s.members {
		err = errors.Join(err, m.Signal(sig))
	}
	return err
}

// settle waits until the server has written nothing to disk for quiet, so that
// work left over from a load does not fall into the next figures; at most for
// settleMax. One that has never written anything (the floor) is still.
func (s *server) settle(ctx context.Context) error {
	const quiet, settleMax, poll = 2 * time.Second, 15 * time.Second, 100 * time.Millisecond
	begin := time.Now()
	have, err := s.written()
	for still := begin; err == nil && have > 0 && time.Since(still) < quiet && time.Since(begin) < settleMax; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
		var now int64
		if now, err = s.written(); now != have {
			have, still = now, time.Now()
		}
	}
	return err
}
