package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kubeshim/shim/internal/freeport"
)

const readyLine = "ready to serve client requests"

// Server is one server process with its own data directory and addresses.
// Its methods are for one goroutine.
type Server struct {
	name    string
	binary  string
	dataDir string
	args    []string
	client  string // host:port
	peer    string
	secure  bool // TLS for clients
	run     *process
}

// process is one run of a server.
type process struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed when its log says so
	done  chan struct{} // closed once it is gone; err is final then

	mu   sync.Mutex
	tail []string // guarded by mu: the end of its log
	err  error    // written before done is closed
}

// Start runs a single-member server with etcd's flags, and flags besides.
// It returns once the server is ready; Stop ends it.
func Start(binary, dataDir string, flags []string) (*Server, error) {
	return start(binary, dataDir, false, flags)
}

// start is Start, with TLS for clients if that is asked for.
func start(binary, dataDir string, secure bool, flags []string) (*Server, error) {
	s, err := newServer("default", binary, dataDir)
	if err != nil {
		return nil, err
	}
	s.secure = secure
	s.configure([]*Server{s}, append([]string{"--initial-cluster-state=new"}, flags...))
	return s, s.Launch()
}

// newServer is a server with addresses, and without flags.
func newServer(name, binary, dataDir string) (*Server, error) {
	client, err := freeport.Reserve()
	if err != nil {
		return nil, err
	}
	peer, err := freeport.Reserve()
	if err != nil {
		return nil, err
	}
	return &Server{name: name, binary: binary, dataDir: dataDir, client: client, peer: peer}, nil
}

// configure makes the flags of a member of a cluster of all.
func (s *Server) configure(all []*Server, flags []string) {
	var cluster []string
	for _, m := range all {
		cluster = append(cluster, m.name+"=http://"+m.peer)
	}
	scheme := "http"
	if s.secure {
		scheme = "https"
	}
	s.args = append([]string{
		"--name=" + s.name,
		"--data-dir=" + s.dataDir,
		"--listen-client-urls=" + scheme + "://" + s.client,
		"--advertise-client-urls=" + scheme + "://" + s.client,
		"--listen-peer-urls=http://" + s.peer,
		"--initial-advertise-peer-urls=http://" + s.peer,
		"--initial-cluster=" + strings.Join(cluster, ","),
	}, flags...)
}

// ClientAddress is the host and port of the client URL.
func (s *Server) ClientAddress() string { return s.client }

// Launch starts the process, anew after a Stop.
func (s *Server) Launch() error {
	p := &process{cmd: exec.Command(s.binary, s.args...), ready: make(chan struct{}), done: make(chan struct{})}
	// A test binary that is killed takes its servers with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	go p.watch(stderr)
	s.run = p
	timer := time.NewTimer(startMax)
	defer timer.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("server ended before it was ready: %v\n%s", p.err, p.log())
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("server is not ready after %v\n%s", startMax, p.log())
	}
}

// Stop sends SIGTERM and waits; it reports a server that had gone before,
// answers with another status than 0 or does not stop.
func (s *Server) Stop() error {
	p := s.run
	select {
	case <-p.done:
		return fmt.Errorf("server had ended by itself: %v\n%s", p.err, p.log())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop server: %w", err)
	}
	timer := time.NewTimer(stopMax)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("server ignored SIGTERM for %v\n%s", stopMax, p.log())
	}
	// etcd ends itself with the signal that it was sent.
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
		return nil
	}
	if p.err != nil {
		return fmt.Errorf("server stopped badly: %w\n%s", p.err, p.log())
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (s *Server) Kill() {
	_ = s.run.cmd.Process.Kill()
	<-s.run.done
}

// watch reads the log until the process ends, then collects its status.
func (p *process) watch(stderr io.Reader) {
	r := bufio.NewReader(stderr)
	isReady := false
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			p.tail = append(p.tail, strings.TrimRight(line, "\n"))
			if len(p.tail) > outputLines {
				p.tail = p.tail[1:]
			}
			p.mu.Unlock()
		}
		if !isReady && strings.Contains(line, readyLine) {
			isReady = true
			close(p.ready)
		}
		if err != nil {
			break
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}
