package robustness

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a shim that runs, or ran. It can be run again.
type process struct {
	t *testing.T

	cmd   *exec.Cmd
	ready chan struct{} // closed when it says that it is ready
	ended chan struct{}

	mu    sync.Mutex
	lines []string // of all runs
}

// run starts the process and does not wait.
func (p *process) run(cmd *exec.Cmd) {
	p.t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.ready, p.ended = cmd, make(chan struct{}), make(chan struct{})
	go p.read(cmd, stderr, p.ready, p.ended)
}

func (p *process) read(cmd *exec.Cmd, r io.Reader, ready, ended chan struct{}) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, scan.Text())
		p.mu.Unlock()
		var line struct{ Msg string }
		if json.Unmarshal(scan.Bytes(), &line) == nil && line.Msg == "ready to serve client requests" {
			close(ready)
		}
	}
	_ = cmd.Wait()
	close(ended)
}

func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.ended:
		p.t.Fatal("shim ended before it was ready")
	case <-time.After(patience):
		p.t.Fatal("shim is not ready in time")
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	if code := p.signal(syscall.SIGKILL); code != -1 {
		p.t.Fatalf("shim ended by itself with code %d before it was killed", code)
	}
}

// signal sends a signal and answers the exit code: 0 as well for the death of that
// signal if shim has chosen it, as etcd does; -1 for another one's.
func (p *process) signal(sig os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	code := p.wait()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && sig != syscall.SIGKILL && status.Signaled() && status.Signal() == sig && p.said("closed etcd server") {
		return 0
	}
	return code
}

// said says whether there is a line with the text in the log.
func (p *process) said(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, func(l string) bool { return strings.Contains(l, text) })
}

// wait is for the end of the process.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("shim did not end in time")
	}
	return p.cmd.ProcessState.ExitCode()
}

// fatal is what the process said about why it ended.
func (p *process) fatal() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, l := range p.lines {
		if strings.Contains(l, `"level":"fatal"`) {
			found = append(found, l)
		}
	}
	return found
}

// cleanup ends the process with the test, and shows its log if the test has failed.
func (p *process) cleanup(name string) {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.t.Failed() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.t.Logf("log of %s (the end of it):\n%s", name, strings.Join(lastLines(p.lines, 60), "\n"))
	}
}

// lastLines are the last n, of those that say the same in a row only the last.
func lastLines(lines []string, n int) (last []string) {
	said := ""
	for i := len(lines) - 1; i >= 0 && len(last) < n; i-- {
		var line struct{ Msg string }
		if json.Unmarshal([]byte(lines[i]), &line) == nil && line.Msg == said {
			continue
		}
		said = line.Msg
		last = append(last, lines[i])
	}
	slices.Reverse(last)
	return last
}
