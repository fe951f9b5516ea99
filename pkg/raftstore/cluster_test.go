package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// network joins Stores in memory. What one member sends another one comes in order by lane, in copies, unless drop says otherwise.
type network struct {
	t  testing.TB
	mu sync.Mutex
	// drop decides about each message; nil: none is lost.
	drop func(m *raftpb.Message) bool
	// tamper changes a message on its way; nil: none is.
	tamper func(m *raftpb.Message)
	ports  map[uint64]*port
}

// port is Peers of one member.
type port struct {
	n       *network
	id      uint64
	handler transport.Handler
	since   time.Time
	links   map[lane]*wire
	dead    atomic.Bool // nothing leaves it any more
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// lane is that of package transport: acknowledgements do not wait behind what carries the data of clients.
type lane struct {
	to   uint64
	data bool
}

// wire is a way from one member to another.
type wire struct {
	mu    sync.Mutex
	queue []*raftpb.Message
	wake  chan struct{}
}

func newNetwork(t testing.TB) *network { return &network{t: t, ports: make(map[uint64]*port)} }

func (n *network) connect(member, _ uint64, h transport.Handler) (Peers, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &port{n: n, id: member, handler: h, since: time.Now(), links: make(map[lane]*wire)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	n.ports[member] = p
	return p, nil
}

func (n *network) port(id uint64) *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ports[id]
}

func (n *network) setDrop(drop func(m *raftpb.Message) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop = drop
}

// isolate cuts a member off, both ways.
func (n *network) isolate(id uint64) {
	n.setDrop(func(m *raftpb.Message) bool { return m.GetFrom() == id || m.GetTo() == id })
}

func (n *network) heal() { n.setDrop(nil) }

func (n *network) setTamper(tamper func(m *raftpb.Message)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tamper = tamper
}

// copy is what of a message arrives.
func (n *network) copy(m *raftpb.Message) *raftpb.Message {
	m = proto.Clone(m).(*raftpb.Message)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tamper != nil {
		n.tamper(m)
	}
	return m
}

func (n *network) drops(m *raftpb.Message) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.drop != nil && n.drop(m)
}

func (p *port) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		if p.dead.Load() || p.n.drops(m) {
			continue
		}
		w := p.wire(lane{m.GetTo(), m.GetType() == raftpb.MsgApp || m.GetType() == raftpb.MsgProp})
		w.mu.Lock()
		w.queue = append(w.queue, p.n.copy(m))
		w.mu.Unlock()
		poke(w.wake)
	}
}

func (p *port) wire(to lane) *wire {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	w := p.links[to]
	if w == nil {
		w = &wire{wake: make(chan struct{}, 1)}
		p.links[to] = w
		if p.ctx.Err() == nil {
			p.wg.Go(func() { p.deliver(to.to, w) })
		}
	}
	return w
}

func (p *port) deliver(to uint64, w *wire) {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-w.wake:
		}
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, m := range queue {
			other := p.n.port(to)
			if other == nil || other.ctx.Err() != nil {
				p.handler.Unreachable(to)
				break
			}
			if err := other.handler.Message(m, other.ctx.Done()); err != nil {
				p.handler.Unreachable(to)
				break
			}
			other.handler.Delivered()
		}
	}
}

func (p *port) SendSnapshot(m *raftpb.Message, open func(context.Context) (io.ReadCloser, int64, error)) {
	p.wg.Go(func() {
		err := p.sendSnapshot(m, open)
		if err != nil {
			p.n.t.Logf("snapshot to %x: %v", m.GetTo(), err)
		}
		if p.ctx.Err() == nil {
			p.handler.SnapshotSent(m.GetTo(), err == nil)
		}
	})
}

func (p *port) sendSnapshot(m *raftpb.Message, open func(context.Context) (io.ReadCloser, int64, error)) error {
	other := p.n.port(m.GetTo())
	if other == nil || other.ctx.Err() != nil || p.n.drops(m) {
		return errors.New("unreachable")
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	r, size, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	return other.handler.ReceiveSnapshot(ctx, proto.Clone(m).(*raftpb.Message), size, r)
}

func (p *port) SetPeers([]transport.Peer) {}
func (p *port) ActiveSince(id uint64) time.Time {
	if other := p.n.port(id); other == nil || other.ctx.Err() != nil {
		return time.Time{}
	}
	if other := p.n.port(id); other.since.After(p.since) {
		return other.since
	}
	return p.since
}
func (p *port) Close() { p.cancel(); p.wg.Wait() }
func (p *port) Call(ctx context.Context, to uint64, name string, request []byte) ([]byte, error) {
	other := p.n.port(to)
	if other == nil || other.ctx.Err() != nil {
		return nil, errors.New("unreachable")
	}
	return other.handler.Call(ctx, p.id, name, request)
}

// runTimeless runs a part of a test in which time passes only while all wait for it: however slow the machine is, nobody misses a heartbeat.
// All tests of a cluster run so, as otherwise a leader that is lost costs them a call that is under way.
func runTimeless(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// cluster is members on one network. A member that is stopped is nil. It is for tests in which time waits for all; see runTimeless.
type cluster struct {
	t       testing.TB
	net     *network
	members []*harness
	stores  []*Store
}

func newCluster(t testing.TB, n int, adjust ...func(i int, c *Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: newNetwork(t), stores: make([]*Store, n)}
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=http://10.0.0.%d:2380", i, i+1))
	}
	for i := range n {
		h := newHarness(t)
		h.db = filepath.Join(t.TempDir(), "db")
		h.adjust = func(cfg *Config) {
			cfg.Name, cfg.InitialCluster = fmt.Sprintf("m%d", i), strings.Join(initial, ",")
			cfg.PeerURLs = []string{fmt.Sprintf("http://10.0.0.%d:2380", i+1)}
			cfg.Ticks, cfg.Now, cfg.TickInterval, cfg.ElectionTicks = nil, time.Now, 10*time.Millisecond, 10
			cfg.Connect = c.net.connect
			for _, f := range adjust {
				f(i, cfg)
			}
		}
		c.members = append(c.members, h)
		c.start(i)
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) start(i int) *Store {
	c.t.Helper()
	c.stores[i] = c.members[i].open()
	return c.stores[i]
}

// kill ends a member as a crash does: nothing is written any more. What was not synced is lost. Nothing leaves it from before that moment
// on, or it could acknowledge what it then has lost.
func (c *cluster) kill(i int) {
	c.t.Helper()
	s := c.stores[i]
	c.stores[i] = nil
	c.net.port(s.id.member).dead.Store(true)
	c.members[i].crash(s)
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	s := c.stores[i]
	c.stores[i] = nil
	closeStore(c.t, s)
}

func (c *cluster) close() {
	var wg sync.WaitGroup
	for _, s := range c.stores {
		if s != nil {
			wg.Go(func() { _ = s.halt() })
		}
	}
	wg.Wait()
}

// leader waits until all that run, and except is not among, agree on a leader, and answers which one it is.
func (c *cluster) leader(except ...int) int {
	c.t.Helper()
	leader := -1
	await(c.t, "a leader", func() bool {
		leader = -1
		var id uint64
		for i, s := range c.stores {
			if s == nil || contains(except, i) {
				continue
			}
			l := s.lead.Load().leader
			if l == 0 || (id != 0 && id != l) {
				return false
			}
			id = l
			if l == s.id.member {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

func contains(list []int, i int) bool {
	for _, j := range list {
		if i == j {
			return true
		}
	}
	return false
}

// follower is a member that runs and does not lead.
func (c *cluster) follower() int {
	leader := c.leader()
	for i, s := range c.stores {
		if s != nil && i != leader {
			return i
		}
	}
	c.t.Fatal("no follower runs")
	return -1
}

// converge waits until all members that run have applied the same, and compares their states.
func (c *cluster) converge() {
	c.t.Helper()
	var views []*mvcc.View
	await(c.t, "equal applied indexes", func() bool {
		views = views[:0]
		for _, s := range c.stores {
			if s != nil {
				views = append(views, s.View())
			}
		}
		for _, v := range views {
			if v.Index() != views[0].Index() {
				return false
			}
		}
		return true
	})
	for _, v := range views {
		if v.Hash() != views[0].Hash() || v.Revision() != views[0].Revision() {
			c.t.Errorf("at index %d: revision %d, hash %x beside revision %d, hash %x", v.Index(), v.Revision(), v.Hash(), views[0].Revision(), views[0].Hash())
		}
	}
}
