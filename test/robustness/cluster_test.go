//go:build robustness

package robustness

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubeshim/shim/test/internal/netns"
)

const (
	clientPort = 2379
	peerPort   = 2380

	// pollInterval is between two questions to a member about something that no event tells of.
	pollInterval = 20 * time.Millisecond
	// statusTimeout is how long a member has for an answer that needs nobody else; a frozen one gives none.
	statusTimeout = time.Second
)

// cluster is some members, each on a host of its own, and a host for the clients, whose links stay whole.
type cluster struct {
	t       *testing.T
	net     *netns.Net
	clients *netns.Host
	dir     string
	flags   []string  // of all members
	scheme  string    // of the members' peer URLs
	members []*member // that were not removed
}

// member is a shim on a host.
type member struct {
	process
	c     *cluster
	name  string
	host  *netns.Host
	dir   string
	id    uint64
	flags []string // beside those of all
	env   []string // beside the test's own
	conn  *grpc.ClientConn
}

// newCluster starts n members, a, b, c and so on.
func newCluster(t *testing.T, n int, flags ...string) *cluster {
	t.Helper()
	c := prepareCluster(t, n, flags...)
	for _, m := range c.members {
		m.launch()
	}
	for _, m := range c.members {
		m.awaitReady()
		m.learnID()
	}
	return c
}

// prepareCluster starts nothing.
func prepareCluster(t *testing.T, n int, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, net: netns.New(t), dir: t.TempDir(), flags: flags, scheme: "http"}
	c.clients = c.net.Host(t, "clients")
	for i := range n {
		m := c.newMember(string(rune('a' + i)))
		c.members = append(c.members, m)
	}
	all := c.initial(c.members...)
	for _, m := range c.members {
		m.flags = []string{"--initial-cluster=" + all}
	}
	return c
}

// newMember has a host, and is not a member of anything yet.
func (c *cluster) newMember(name string) *member {
	c.t.Helper()
	m := &member{process: process{t: c.t}, c: c, name: name, host: c.net.Host(c.t, name), dir: filepath.Join(c.dir, name)}
	c.t.Cleanup(func() { m.cleanup(name) })
	m.conn = c.dial(m.host.Addr(clientPort))
	return m
}

func (m *member) peerURL() string { return m.c.scheme + "://" + m.host.Addr(peerPort) }

// initial is the flag's value for these members.
func (c *cluster) initial(members ...*member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.name+"="+m.peerURL())
	}
	return strings.Join(all, ",")
}

// launch starts the process and does not wait.
func (m *member) launch() {
	m.t.Helper()
	url := "http://" + m.host.Addr(clientPort)
	args := []string{"--name=" + m.name, "--data-dir=" + m.dir, "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
		"--listen-peer-urls=" + m.peerURL(), "--initial-advertise-peer-urls=" + m.peerURL(), "--watch-progress-notify-interval=100ms"}
	cmd := m.host.Command(binary, slices.Concat(args, m.c.flags, m.flags)...)
	cmd.Env = append(os.Environ(), m.env...)
	m.run(cmd)
}

func (m *member) start() {
	m.t.Helper()
	m.launch()
	m.awaitReady()
}

// stop is SIGTERM.
func (m *member) stop() {
	m.t.Helper()
	if code := m.signal(syscall.SIGTERM); code != 0 {
		m.t.Errorf("%s ended with code %d after SIGTERM", m.name, code)
	}
}

func (m *member) freeze() { m.send(syscall.SIGSTOP) }
func (m *member) thaw()   { m.send(syscall.SIGCONT) }

func (m *member) send(sig syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.t.Fatalf("%v to %s: %v", sig, m.name, err)
	}
}

func (m *member) learnID() {
	m.t.Helper()
	await(m.t, m.name+" to tell its ID", func() bool {
		st := m.status()
		if st == nil {
			return false
		}
		m.id = st.Header.MemberId
		return true
	})
}

// status is nil while the member does not answer.
func (m *member) status() *pb.StatusResponse {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return nil
	}
	return st
}

// metric is the sum of all series of a metric. A member that does not answer has 0.
func (m *member) metric(name string) (sum float64) {
	client := http.Client{Timeout: statusTimeout, Transport: &http.Transport{DialContext: m.c.clients.DialNetwork, DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.host.Addr(clientPort) + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if rest, ok := strings.CutPrefix(scan.Text(), name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				m.t.Errorf("%s: %v", scan.Text(), err)
			}
			sum += v
		}
	}
	return sum
}

// dial makes a connection from the clients' host. It comes back soon after a restart.
func (c *cluster) dial(addr string, more ...grpc.DialOption) *grpc.ClientConn {
	c.t.Helper()
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.clients.Dial(ctx, addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
			Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
	}, more...)
	if !strings.Contains(addr, "://") {
		addr = "passthrough:///" + addr
	}
	conn, err := grpc.NewClient(addr, options...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// leader awaits that a majority of all follows one of those that are asked, in the newest term that any of them knows; without
// arguments all are asked.
func (c *cluster) leader(among ...*member) (leader *member) {
	c.t.Helper()
	if len(among) == 0 {
		among = c.members
	}
	awaitSlowly(c.t, "a leader among "+names(among), func() bool {
		votes := make(map[uint64]int)
		terms := make(map[uint64]uint64)
		var newest uint64
		for _, m := range among {
			if st := m.status(); st != nil {
				votes[st.Leader]++
				terms[st.Leader] = max(terms[st.Leader], st.RaftTerm)
				newest = max(newest, st.RaftTerm)
			}
		}
		for _, m := range among {
			if votes[m.id] > len(c.members)/2 && terms[m.id] == newest {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// others are all members but these.
func (c *cluster) others(but ...*member) []*member {
	return slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return slices.Contains(but, m) })
}

func hosts(members []*member) (all []*netns.Host) {
	for _, m := range members {
		all = append(all, m.host)
	}
	return all
}

func names(members []*member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// cutOff parts some members from the others. Clients reach all of them.
func (c *cluster) cutOff(members ...*member) {
	c.net.Partition(hosts(members), hosts(c.others(members...)))
}

// deafen loses what others send to a member, and mute what it sends to them.
func (c *cluster) deafen(m *member) {
	c.each(m, func(o *member) { c.net.Set(o.host, m.host, netns.Cut) })
}
func (c *cluster) mute(m *member) {
	c.each(m, func(o *member) { c.net.Set(m.host, o.host, netns.Cut) })
}

func (c *cluster) each(but *member, do func(*member)) {
	for _, o := range c.others(but) {
		do(o)
	}
}

// links makes all links between members behave as f says.
func (c *cluster) links(f netns.Fault) {
	for i, a := range c.members {
		for _, b := range c.members[i+1:] {
			c.net.SetBoth(a.host, b.host, f)
		}
	}
}

func (c *cluster) heal() { c.net.Heal() }

// agree awaits that all members have applied revision rev, which has to be the newest, and compares their hashes of it. No member may have
// found anything corrupt.
func (c *cluster) agree(rev int64) {
	c.t.Helper()
	sums := make(map[string][]string)
	for _, m := range c.members {
		awaitSlowly(c.t, fmt.Sprintf("%s to reach revision %d", m.name, rev), func() bool {
			st := m.status()
			return st != nil && st.Header.Revision >= rev
		})
	}
	awaitSlowly(c.t, "equal compactions", func() bool {
		clear(sums)
		compacted := make(map[int64]bool)
		for _, m := range c.members {
			ctx, cancel := patiently()
			r, err := pb.NewMaintenanceClient(m.conn).HashKV(ctx, &pb.HashKVRequest{Revision: rev})
			cancel()
			if err != nil {
				c.t.Fatalf("hash of %s at revision %d: %v", m.name, rev, err)
			}
			compacted[r.CompactRevision] = true
			sum := fmt.Sprintf("hash %08x of revision %d (compacted %d)", r.Hash, r.HashRevision, r.CompactRevision)
			sums[sum] = append(sums[sum], m.name)
		}
		return len(compacted) == 1
	})
	if len(sums) != 1 {
		c.t.Errorf("the members differ: %v", sums)
	}
	for _, m := range c.members {
		var st *pb.StatusResponse
		awaitSlowly(c.t, "the status of "+m.name, func() bool { st = m.status(); return st != nil })
		if len(st.Errors) > 0 {
			c.t.Errorf("status of %s: %v", m.name, st)
		}
	}
}

// awaitSlowly is await for a condition that is asked of other processes.
func awaitSlowly(t *testing.T, what string, cond func() bool) {
	t.Helper()
	await(t, what, func() bool {
		if cond() {
			return true
		}
		time.Sleep(pollInterval)
		return false
	})
}
