package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/internal/freeport"
)

// connectTimeout bounds the wait for a member to listen.
const connectTimeout = time.Minute

// Member is one process, which can be ended and launched again.
type Member struct {
	Name         string // of its data dir, and of its log beside that
	Dir          string // its data dir
	Args         []string
	Client, Peer string // addresses, ones of the loopback that nobody else gets
	// Conn are the connections that Connect made; End closes them.
	Conn []*grpc.ClientConn

	path string
	cmd  *exec.Cmd
}

// New answers a member that runs the program at path, with a data dir below
// dir. It is not launched.
func New(name, path, dir string) (m *Member, err error) {
	m = &Member{Name: name, Dir: filepath.Join(dir, name), path: path}
	if m.Client, err = freeport.Reserve(); err == nil {
		m.Peer, err = freeport.Reserve()
	}
	return m, err
}

// Etcd has the member take etcd's flags, as one of a new cluster.
func (m *Member) Etcd(cluster ...*Member) {
	var initial []string
	for _, c := range cluster {
		initial = append(initial, c.Name+"=http://"+c.Peer)
	}
	m.Args = []string{
		"--name=" + m.Name,
		"--data-dir=" + m.Dir,
		"--listen-client-urls=http://" + m.Client, "--advertise-client-urls=http://" + m.Client,
		"--listen-peer-urls=http://" + m.Peer, "--initial-advertise-peer-urls=http://" + m.Peer,
		"--initial-cluster=" + strings.Join(initial, ","),
	}
}

// Launch runs the program and does not wait for it.
func (m *Member) Launch() error {
	log, err := os.OpenFile(m.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(m.path, m.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	m.cmd = cmd
	return nil
}

// Connect waits until the member listens and makes this many connections.
func (m *Member) Connect(connections int) error {
	if err := m.awaitPort(); err != nil {
		return err
	}
	for range connections {
		c, err := Dial(m.Client)
		if err != nil {
			return err
		}
		m.Conn = append(m.Conn, c)
	}
	return nil
}

// Dial answers a connection of its own to an address, for messages of any size.
func Dial(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32))}, opts...)...)
}

func (m *Member) awaitPort() error {
	for deadline := time.Now().Add(connectTimeout); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("tcp", m.Client)
		if err == nil {
			return c.Close()
		}
		if m.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
	}
	return fmt.Errorf("%s does not listen on %s; see %s.log", m.Name, m.Client, m.Dir)
}

// End sends a signal, a paused member goes on to see it, and waits for the end
// of the process.
func (m *Member) End(sig syscall.Signal) {
	for _, c := range m.Conn {
		c.Close()
	}
	m.Conn = nil
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(sig)
		_ = m.cmd.Process.Signal(syscall.SIGCONT)
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// Signal sends a signal and does not wait.
func (m *Member) Signal(sig syscall.Signal) error {
	if m.cmd == nil {
		return fmt.Errorf("%s does not run", m.Name)
	}
	return m.cmd.Process.Signal(sig)
}

// Log is the end of what the member wrote.
func (m *Member) Log() string {
	b, err := os.ReadFile(m.Dir + ".log")
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("%s:\n%s", m.Name, b[max(0, len(b)-2000):])
}

// Fetch writes into a file what a URL of the member's answers.
func (m *Member) Fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Client+url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
