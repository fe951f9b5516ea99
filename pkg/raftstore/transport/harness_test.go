package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const testCluster = 0xc1

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// await waits until ok.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// within receives from c.
func within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
		panic("unreachable")
	}
}

// checkLeaks fails the test if a goroutine of this package is left at its end. Call it first.
func checkLeaks(t testing.TB) {
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			buf := make([]byte, 4<<20)
			left = left[:0]
			for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if strings.Contains(g, "raftstore/transport.") && !strings.Contains(g, "testing.") {
					left = append(left, g)
				}
			}
			if len(left) == 0 {
				return
			}
		}
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

// member is a transport under test, and the Handler that records what it is given.
type member struct {
	t   testing.TB
	id  uint64
	url string
	tr  *Transport
	net *faultyNet

	mu          sync.Mutex
	got         []*raftpb.Message
	events      []Event
	refuses     map[uint64]error
	unreachable map[uint64]int
	removed     int

	// onMessage, onSnapshot and onCall replace what the handler does; set before messages come.
	onMessage  func(*raftpb.Message) error
	blocks     chan *raftpb.Message // set: Message gives its message here, and nil when the stream has ended
	onSnapshot func(context.Context, *raftpb.Message, int64, io.Reader) error
	onCall     func(ctx context.Context, from uint64, name string, request []byte) ([]byte, error)
	sent       chan bool // SnapshotSent
}

// newMember serves on a free port of the loopback address.
func newMember(t testing.TB, id uint64, adjust ...func(*Options)) *member {
	t.Helper()
	m := &member{t: t, id: id, net: newFaultyNet(), refuses: make(map[uint64]error), unreachable: make(map[uint64]int), sent: make(chan bool, 64)}
	o := Options{Member: id, Cluster: testCluster, Version: "test", ProbeInterval: 50 * time.Millisecond, ProbeTimeout: time.Minute, BackoffMax: 50 * time.Millisecond,
		OnEvent: m.event, Dial: m.net.dial}
	for _, f := range adjust {
		f(&o)
	}
	tr, err := New(o, m)
	if err != nil {
		t.Fatal(err)
	}
	m.tr = tr
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.url = "http://" + l.Addr().String()
	if o.ServerTLS != nil {
		m.url = "https://" + l.Addr().String()
	}
	served := make(chan error, 1)
	go func() { served <- tr.Serve(l) }()
	t.Cleanup(func() {
		tr.Close()
		if err := <-served; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return m
}

// connect makes the members each other's peers.
func connect(members ...*member) {
	var peers []Peer
	for _, m := range members {
		peers = append(peers, Peer{ID: m.id, URLs: []string{m.url}})
	}
	for _, m := range members {
		m.tr.SetPeers(peers)
	}
}

// reaches waits for a link.
func (m *member) reaches(id uint64) {
	m.t.Helper()
	await(m.t, fmt.Sprintf("link from %d to %d", m.id, id), func() bool { return !m.tr.ActiveSince(id).IsZero() })
}

func (m *member) Message(msg *raftpb.Message, ended <-chan struct{}) error {
	if m.blocks != nil {
		m.blocks <- msg
		<-ended
		m.blocks <- nil
		return errReplaced
	}
	if m.onMessage != nil {
		if err := m.onMessage(msg); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, msg)
	return nil
}

func (m *member) Delivered() {}

func (m *member) Unreachable(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreachable[id]++
}

func (m *member) SnapshotSent(_ uint64, ok bool) { m.sent <- ok }

func (m *member) ReceiveSnapshot(ctx context.Context, msg *raftpb.Message, size int64, r io.Reader) error {
	return m.onSnapshot(ctx, msg, size, r)
}

func (m *member) Removed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removed++
}

func (m *member) Refuses(from uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refuses[from]
}

func (m *member) refuse(from uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuses[from] = err
}

func (m *member) Call(ctx context.Context, from uint64, name string, request []byte) ([]byte, error) {
	return m.onCall(ctx, from, name, request)
}

func (m *member) Members() []byte  { return fmt.Appendf(nil, `[{"id":%d}]`, m.id) }
func (m *member) Versions() []byte { return []byte(`{"etcdserver":"3.7.3"}`) }

func (m *member) event(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// told says whether an event contains the text.
func (m *member) told(text string) func() bool {
	return func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, e := range m.events {
			if strings.Contains(e.String(), text) {
				return true
			}
		}
		return false
	}
}

// messages are those received so far.
func (m *member) messages(types ...raftpb.MessageType) (out []*raftpb.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.got {
		for _, t := range types {
			if msg.GetType() == t {
				out = append(out, msg)
			}
		}
	}
	return out
}

func (m *member) count(t raftpb.MessageType) int { return len(m.messages(t)) }

func (m *member) removals() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed
}

func (m *member) losses(id uint64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unreachable[id]
}

// heartbeat and appendOf are messages that carry a number as their index.
func heartbeat(from, to, number uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to, Index: &number}
}

func appendOf(from, to, number uint64, data ...[]byte) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: &from, To: &to, Index: &number, Term: new(uint64(3))}
	for i, d := range data {
		m.Entries = append(m.Entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(3)), Index: new(number + uint64(i)), Data: d})
	}
	return m
}

func (m *member) send(messages ...*raftpb.Message) { m.tr.Send(messages) }

// faultyNet dials connections that can be stalled and cut.
type faultyNet struct {
	mu    sync.Mutex
	conns map[*faultyConn]bool
	gate  chan struct{} // closed: traffic passes
	// cutAfter closes a connection after so many bytes written; 0: never.
	cutAfter atomic.Int64
	dials    atomic.Int64
}

func newFaultyNet() *faultyNet {
	n := &faultyNet{conns: make(map[*faultyConn]bool), gate: make(chan struct{})}
	close(n.gate)
	return n
}

func (n *faultyNet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.dials.Add(1)
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	f := &faultyConn{Conn: c, net: n, done: make(chan struct{})}
	n.mu.Lock()
	n.conns[f] = true
	n.mu.Unlock()
	return f, nil
}

// stall stops the traffic of all connections, also of those to come, without an error; heal lets it go on.
func (n *faultyNet) stall() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gate = make(chan struct{})
}

func (n *faultyNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.gate)
}

// cut closes all connections.
func (n *faultyNet) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Conn.Close()
	}
}

func (n *faultyNet) pass(c *faultyConn) error {
	n.mu.Lock()
	gate := n.gate
	n.mu.Unlock()
	if c.lost.Load() {
		gate = nil
	}
	select {
	case <-gate:
		return nil
	case <-c.done:
		return net.ErrClosed
	}
}

type faultyConn struct {
	net.Conn
	net     *faultyNet
	lost    atomic.Bool
	written atomic.Int64
	done    chan struct{}
	once    sync.Once
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.net.pass(c)
	}
	return n, err
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if err := c.net.pass(c); err != nil {
		return 0, err
	}
	if limit := c.net.cutAfter.Load(); limit > 0 && c.written.Add(int64(len(p))) > limit {
		_ = c.Conn.Close()
	}
	return c.Conn.Write(p)
}

// stall stops the traffic of one connection for good, without an error.
func (c *faultyConn) stall() { c.lost.Store(true) }

// SyscallConn implements syscall.Conn: writes that do not wait meet the same faults.
func (c *faultyConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	return faultyRaw{raw, c}, err
}

type faultyRaw struct {
	syscall.RawConn
	c *faultyConn
}

func (r faultyRaw) Write(f func(fd uintptr) bool) error {
	r.c.net.mu.Lock()
	gate := r.c.net.gate
	r.c.net.mu.Unlock()
	select {
	case <-gate:
	default:
		return nil // as a kernel whose buffers are full
	}
	if r.c.lost.Load() {
		return nil
	}
	if limit := r.c.net.cutAfter.Load(); limit > 0 && r.c.written.Add(100) > limit { // about a frame
		_ = r.c.Conn.Close()
	}
	return r.RawConn.Write(f)
}

func (r faultyRaw) Read(f func(fd uintptr) bool) error {
	err := r.RawConn.Read(f)
	if err == nil {
		err = r.c.net.pass(r.c)
	}
	return err
}

func (c *faultyConn) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.net.mu.Lock()
		delete(c.net.conns, c)
		c.net.mu.Unlock()
	})
	return c.Conn.Close()
}

// get asks a URL by HTTP.
func get(t testing.TB, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
