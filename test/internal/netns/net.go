package netns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	namePrefix = "shim-"
	hostsMax   = 250
)

// nets numbers the Nets of this process.
var nets atomic.Int64

// Net is some hosts and the switch between them.
type Net struct {
	prefix string // of its namespaces' names
	space  string // the switch's namespace
	seed   uint64

	mu    sync.Mutex
	hosts []*Host
	links map[[2]*Host]*link

	readers sync.WaitGroup
	changed chan struct{} // closed and replaced whenever a counter moves; under mu
	closed  bool
}

// New makes a network without hosts, which lasts until t ends. The dice of its
// faults are thrown with a seed that the test's log tells.
func New(t testing.TB) *Net {
	t.Helper()
	n, err := open(rand.Uint64())
	if err != nil {
		t.Fatalf("netns: %v", err)
	}
	t.Logf("netns: seed %d", n.seed)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("netns: %v", err)
		}
	})
	return n
}

func open(seed uint64) (*Net, error) {
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errors.New("the program ip is missing; install iproute2")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root; run the tests as root")
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("%s%d-%d-", namePrefix, os.Getpid(), nets.Add(1))
	n := &Net{prefix: prefix, space: prefix + "switch", seed: seed, links: make(map[[2]*Host]*link), changed: make(chan struct{})}
	if err := ip("netns", "add", n.space); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

// Host adds a host.
func (n *Net) Host(t testing.TB, name string) *Host {
	t.Helper()
	h, err := n.add(name)
	if err != nil {
		t.Fatalf("netns: host %s: %v", name, err)
	}
	return h
}

func (n *Net) add(name string) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := len(n.hosts) + 1
	if number > hostsMax {
		return nil, fmt.Errorf("%d hosts are the limit", hostsMax)
	}
	h := &Host{Name: name, net: n, space: n.prefix + name, addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(number)}),
		mac: [6]byte{2, 0, 10, 0, 0, byte(number)}}
	port := fmt.Sprintf("p%d", number)
	mac := fmt.Sprintf("02:00:0a:00:00:%02x", number)
	for _, args := range [][]string{
		{"netns", "add", h.space},
		{"-n", n.space, "link", "add", port, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", h.space},
		{"-n", n.space, "link", "set", port, "up"},
		{"-n", h.space, "address", "add", h.addr.String() + "/24", "dev", "eth0"},
		{"-n", h.space, "link", "set", "eth0", "arp", "off", "up"},
		{"-n", h.space, "link", "set", "lo", "up"},
	} {
		if err := ip(args...); err != nil {
			return nil, err
		}
	}
	err := inside(n.space, func() (err error) {
		h.port, err = openPort(port)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, other := range append(n.hosts, h) {
		for _, d := range [][2]*Host{{h, other}, {other, h}} {
			if n.links[d] == nil {
				n.links[d] = newLink(n, d[1], n.seed+uint64(len(n.links)))
			}
		}
	}
	n.hosts = append(n.hosts, h)
	n.readers.Go(func() { n.forward(h) })
	return h, nil
}

// Hosts are all hosts, in the order they were added.
func (n *Net) Hosts() []*Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Host(nil), n.hosts...)
}

// Set makes one direction behave as f says from now on.
func (n *Net) Set(from, to *Host, f Fault) { n.link(from, to).set(f) }

// SetBoth makes both directions between two hosts behave as f says.
func (n *Net) SetBoth(a, b *Host, f Fault) {
	n.Set(a, b, f)
	n.Set(b, a, f)
}

// Isolate cuts a host off from all others, both ways.
func (n *Net) Isolate(h *Host) { n.Partition([]*Host{h}, without(n.Hosts(), h)) }

// Partition cuts every connection between hosts of different groups. Hosts of
// no group, and connections within a group, stay as they are.
func (n *Net) Partition(groups ...[]*Host) {
	for i, group := range groups {
		for _, others := range groups[i+1:] {
			for _, a := range group {
				for _, b := range others {
					n.SetBoth(a, b, Cut)
				}
			}
		}
	}
}

// Heal takes all faults away.
func (n *Net) Heal() {
	for _, a := range n.Hosts() {
		for _, b := range n.Hosts() {
			n.Set(a, b, Fault{})
		}
	}
}

// Counters are the frames of one direction so far.
func (n *Net) Counters(from, to *Host) Counters { return n.link(from, to).counters() }

// Await returns when ok says so of the counters of a direction, which it is
// asked whenever they change, or with the context's error.
func (n *Net) Await(ctx context.Context, from, to *Host, ok func(Counters) bool) error {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		if ok(n.Counters(from, to)) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Net) link(from, to *Host) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[[2]*Host{from, to}]
}

func (n *Net) signal() {
	n.mu.Lock()
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
}

// Close ends the forwarder, kills what still runs in the hosts and removes
// them. The test's end calls it.
func (n *Net) Close() error {
	n.mu.Lock()
	hosts, closed := n.hosts, n.closed
	n.closed = true
	n.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.port.Close())
	}
	n.readers.Wait()
	for _, l := range n.links {
		l.close()
	}
	for _, h := range hosts {
		errs = append(errs, remove(h.space))
	}
	return errors.Join(append(errs, remove(n.space))...)
}

// sweep removes the namespaces of processes that are no more.
func sweep() error {
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest, ours := strings.CutPrefix(name, namePrefix)
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if !ours || err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := remove(name); err != nil && exists(name) { // another process may sweep, too
			return err
		}
	}
	return nil
}

func exists(space string) bool {
	_, err := os.Stat(spacePath(space))
	return err == nil
}

// remove kills what runs in a namespace, and removes it.
func remove(space string) error {
	out, err := exec.Command("ip", "netns", "pids", space).Output()
	if err != nil {
		return fmt.Errorf("list processes of %s: %w", space, err)
	}
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL) // may have ended by itself
		}
	}
	return ip("netns", "delete", space)
}

// ip runs iproute2.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func without(hosts []*Host, h *Host) []*Host {
	var rest []*Host
	for _, x := range hosts {
		if x != h {
			rest = append(rest, x)
		}
	}
	return rest
}
