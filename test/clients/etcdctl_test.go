package clients

import (
	"bufio"
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var clientPrefix = clientv3.WithPrefix()

// running is an etcdctl that stays.
type running struct {
	p     *pattern
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func (p *pattern) start(args ...string) *running {
	p.t.Helper()
	cmd := p.c.etcdctl(p.ctx, args...)
	out, err := cmd.StdoutPipe()
	p.must(err)
	p.must(cmd.Start())
	p.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &running{p, cmd, bufio.NewScanner(out)}
}

// hears says the next n lines.
func (r *running) hears(n int) {
	r.p.t.Helper()
	for range n {
		if !r.lines.Scan() {
			r.p.say("%s: end", r.cmd.Args[2])
			return
		}
		r.p.say("%s: %s", r.cmd.Args[2], r.lines.Text())
	}
}

// stops interrupts it.
func (r *running) stops() {
	r.p.t.Helper()
	r.p.must(r.cmd.Process.Signal(syscall.SIGINT))
	r.p.say("%s ends: %v", r.cmd.Args[2], r.cmd.Wait())
}

// runs says all that an etcdctl has to say.
func (p *pattern) runs(args ...string) {
	p.t.Helper()
	var out, complaint bytes.Buffer
	cmd := p.c.etcdctl(p.ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	last := strings.Split(strings.TrimSpace(complaint.String()), "\n")
	p.say("etcdctl %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), last[len(last)-1])
}

// TestEtcdctlLock: the lock is held as long as etcdctl runs, or its command does.
func TestEtcdctlLock(t *testing.T) {
	onBoth(t, func(p *pattern) {
		p.runs("lock", "mutex", "--", "sh", "-c", "echo held $ETCD_LOCK_KEY at $ETCD_LOCK_REV")
		p.runs("lock", "mutex", "sh", "-c", "exit 7")
		first := p.start("lock", "mutex")
		first.hears(1)
		p.runs("lock", "mutex", "--timeout=3s", "true")
		second := p.start("lock", "--ttl=10", "mutex")
		for p.cli.Ctx().Err() == nil { // until it waits
			r, err := p.cli.Get(p.ctx, "mutex/", clientPrefix)
			p.must(err)
			if len(r.Kvs) == 2 {
				break
			}
		}
		first.stops()
		second.hears(1)
		second.stops()
		p.get("mutex/", clientPrefix)
	})
}

// TestEtcdctlElect: who is elected says so, and who listens hears of it.
func TestEtcdctlElect(t *testing.T) {
	onBoth(t, func(p *pattern) {
		listener := p.start("elect", "-l", "vote")
		first := p.start("elect", "vote", "one")
		first.hears(2)
		listener.hears(2)
		second := p.start("elect", "vote", "two")
		for p.cli.Ctx().Err() == nil {
			r, err := p.cli.Get(p.ctx, "vote/", clientPrefix)
			p.must(err)
			if len(r.Kvs) == 2 {
				break
			}
		}
		first.stops()
		second.hears(2)
		listener.hears(2)
		listener.stops()
		second.stops()
		p.runs("elect", "vote")
		p.get("vote/", clientPrefix)
	})
}
