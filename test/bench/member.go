package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/test/internal/peers"
)

// member is one process of a server.
type member struct {
	name         string // of its data dir, and of its log beside that
	dir          string
	path         string
	args         []string
	client, peer string // addresses
	cmd          *exec.Cmd
	conn         []*grpc.ClientConn
}

// newMembers finds, or builds, the program of that name and gives each member a
// fresh data dir and free ports.
func newMembers(program, dir string, count int) ([]*member, error) {
	path, err := programPath(program)
	if err != nil {
		return nil, err
	}
	var members []*member
	var cluster []string
	for i := range count {
		m := &member{name: program, path: path}
		if count > 1 {
			m.name = fmt.Sprintf("%s-%d", program, i)
		}
		m.dir = filepath.Join(dir, m.name)
		if m.client, err = freeAddr(); err != nil {
			return nil, err
		}
		if m.peer, err = freeAddr(); err != nil {
			return nil, err
		}
		members, cluster = append(members, m), append(cluster, m.name+"=http://"+m.peer)
	}
	for _, m := range members {
		if err := m.configure(program, strings.Join(cluster, ",")); err != nil {
			return nil, err
		}
	}
	return members, nil
}

func programPath(program string) (string, error) {
	switch program {
	case "shim":
		return peers.BuildShim()
	case "floor":
		return os.Executable()
	case "etcd", "kine":
		return peers.Build(program)
	}
	return "", fmt.Errorf("no such server: %q", program)
}

func (m *member) configure(program, cluster string) error {
	switch program {
	case "kine":
		m.args = []string{"--listen-address=" + m.client, "--metrics-bind-address=0",
			"--endpoint=sqlite://" + filepath.Join(m.dir, "db") + "?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate"}
		return os.MkdirAll(m.dir, 0o755)
	case "floor":
		m.args = []string{"-serve-floor=" + m.client}
		return os.MkdirAll(m.dir, 0o755)
	}
	m.args = []string{
		"--name=" + m.name,
		"--data-dir=" + m.dir,
		"--listen-client-urls=http://" + m.client, "--advertise-client-urls=http://" + m.client,
		"--listen-peer-urls=http://" + m.peer, "--initial-advertise-peer-urls=http://" + m.peer,
		"--initial-cluster=" + cluster,
	}
	return nil
}

// launch runs the program and does not wait for it.
func (m *member) launch() error {
	log, err := os.OpenFile(m.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(m.path, m.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.cmd = cmd
	return nil
}

// connect waits until the member listens.
func (m *member) connect() error {
	if err := m.awaitPort(); err != nil {
		return err
	}
	for range connections {
		c, err := grpc.NewClient("passthrough:///"+m.client, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
		if err != nil {
			return err
		}
		m.conn = append(m.conn, c)
	}
	return nil
}

func (m *member) awaitPort() error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("tcp", m.client)
		if err == nil {
			return c.Close()
		}
		if m.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
	}
	return fmt.Errorf("%s does not listen on %s; see %s.log", m.name, m.client, m.dir)
}

// end sends a signal, a paused member goes on to see it, and waits for the end
// of the process.
func (m *member) end(sig syscall.Signal) {
	for _, c := range m.conn {
		c.Close()
	}
	m.conn = nil
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(sig)
		_ = m.cmd.Process.Signal(syscall.SIGCONT)
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *member) signal(sig syscall.Signal) error {
	if m.cmd == nil {
		return fmt.Errorf("%s does not run", m.name)
	}
	return m.cmd.Process.Signal(sig)
}

// log is the end of what the member wrote.
func (m *member) log() string {
	b, err := os.ReadFile(m.dir + ".log")
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("%s:\n%s", m.name, b[max(0, len(b)-2000):])
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
