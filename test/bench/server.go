package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/test/internal/peers"
)

// server is one program under measurement.
type server struct {
	name string
	dir  string
	path string
	args []string
	addr string
	cmd  *exec.Cmd
	conn []*grpc.ClientConn
}

// newServer finds, or builds, the program of that name and gives it a fresh
// data dir and free ports.
func newServer(name, dir string) (*server, error) {
	client, err := freeAddr()
	if err != nil {
		return nil, err
	}
	peer, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, dir: filepath.Join(dir, name), addr: client}
	etcdArgs := []string{
		"--data-dir=" + s.dir,
		"--listen-client-urls=http://" + client, "--advertise-client-urls=http://" + client,
		"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer,
		"--initial-cluster=default=http://" + peer,
	}
	switch name {
	case "shim":
		s.path, err = peers.BuildShim()
		s.args = etcdArgs
	case "etcd":
		s.path, err = peers.Build("etcd")
		s.args = etcdArgs
	case "kine":
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
		s.path, err = peers.Build("kine")
		s.args = []string{"--listen-address=" + client, "--metrics-bind-address=0",
			"--endpoint=sqlite://" + filepath.Join(s.dir, "db") + "?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate"}
	case "floor":
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
		s.path, err = os.Executable()
		s.args = []string{"-serve-floor=" + client}
	default:
		err = fmt.Errorf("no such server: %q", name)
	}
	return s, err
}

// start runs the program and returns how long it took to its first answer.
func (s *server) start() (time.Duration, error) {
	log, err := os.OpenFile(s.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	s.cmd = exec.Command(s.path, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", s.name, err)
	}
	if err := s.awaitPort(); err != nil {
		return 0, err
	}
	for range connections {
		c, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
		if err != nil {
			return 0, err
		}
		s.conn = append(s.conn, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = s.kv(0).Range(ctx, &pb.RangeRequest{Key: []byte("/registry/health")}, grpc.WaitForReady(true))
	return time.Since(begin), err
}

func (s *server) awaitPort() error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
	}
	return fmt.Errorf("%s does not listen on %s; see %s.log", s.name, s.addr, s.dir)
}

func (s *server) kv(worker int) pb.KVClient { return pb.NewKVClient(s.conn[worker%len(s.conn)]) }

// kill is kill -9.
func (s *server) kill() { s.end(syscall.SIGKILL) }

func (s *server) stop() { s.end(syscall.SIGTERM) }

func (s *server) end(sig syscall.Signal) {
	for _, c := range s.conn {
		c.Close()
	}
	s.conn = nil
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig)
		_ = s.cmd.Process.Signal(syscall.SIGCONT) // a paused one would not see it
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// pause stops the process's threads while another server is measured, so that
// its background work does not fall into the other's figures.
func (s *server) pause() error { return s.signal(syscall.SIGSTOP) }

// resume ends a pause, and leaves a moment for timers that fire at once.
func (s *server) resume() error {
	err := s.signal(syscall.SIGCONT)
	time.Sleep(100 * time.Millisecond)
	return err
}

func (s *server) signal(sig syscall.Signal) error {
	if s.cmd == nil {
		return fmt.Errorf("%s does not run", s.name)
	}
	return s.cmd.Process.Signal(sig)
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

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
