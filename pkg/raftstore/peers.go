package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// Peers is the way to the other members: a transport.Transport, or its twin in memory. What comes in goes to a transport.Handler.
type Peers interface {
	// Send does not block, and owns the messages. What cannot be sent is dropped, and told to Handler.Unreachable.
	Send(messages []*raftpb.Message)
	// SendSnapshot sends a MsgSnap with the data that open gives. open may change the message's metadata. Handler.SnapshotSent tells
	// how it went.
	SendSnapshot(m *raftpb.Message, open func(ctx context.Context) (io.ReadCloser, int64, error))
	// SetPeers says who the members are, this one included.
	SetPeers(peers []transport.Peer)
	// ActiveSince is since when messages reach a member, or zero.
	ActiveSince(id uint64) time.Time
	// Call asks a member; Handler.Call answers there.
	Call(ctx context.Context, to uint64, name string, request []byte) ([]byte, error)
	// Close ends it; the Handler is not called afterwards.
	Close()
}

// nobody is Peers of a member that was given no transport.
type nobody struct{}

func (nobody) Send([]*raftpb.Message) {}
func (nobody) SendSnapshot(*raftpb.Message, func(context.Context) (io.ReadCloser, int64, error)) {
}
func (nobody) SetPeers([]transport.Peer)    {}
func (nobody) ActiveSince(uint64) time.Time { return time.Time{} }
func (nobody) Close()                       {}
func (nobody) Call(context.Context, uint64, string, []byte) ([]byte, error) {
	return nil, transport.ErrUnreachable
}

// inbound is what other members sent and the node did not step yet.
type inbound struct {
	mu       sync.Mutex
	messages []*raftpb.Message
	count    int // of their entries
	bytes    int
	room     chan struct{} // closed by the next take; nil: nobody waits
	wake     chan struct{}
	bytesMax int // one message may exceed it
}

// errStreamEnded is the end of a wait for room whose sender has connected anew.
var errStreamEnded = errors.New("the stream has ended")

// put leaves it to the caller to have a turn taken for what it has put. It waits for room for what carries entries, so that the sender is slowed down, until that one's stream has ended: the next one has to get through
// (a member that does not take proposals, as it has no leader, learns of the leader by it). All else is dropped when there are too many: raft
// repeats it.
func (b *inbound) put(m *raftpb.Message, ended, stop <-chan struct{}) error {
	size := 0
	for _, e := range m.GetEntries() {
		size += entrySize(e)
	}
	wait := m.GetType() == raftpb.MsgApp || m.GetType() == raftpb.MsgProp
	for {
		b.mu.Lock()
		full := len(b.messages) >= inboundMessagesMax || (len(b.messages) > 0 && b.bytes+size > b.bytesMax)
		if !full || !wait {
			break
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		poke(b.wake)
		select {
		case <-room:
		case <-ended:
			return errStreamEnded
		case <-stop:
			return ErrStopped
		}
	}
	if len(b.messages) < inboundMessagesMax {
		b.messages, b.bytes = append(b.messages, m), b.bytes+size
		b.count += len(m.GetEntries())
	}
	b.mu.Unlock()
	return nil
}

// take is all that came in since.
func (b *inbound) take() []*raftpb.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages := b.messages
	b.messages, b.bytes, b.count = nil, 0, 0
	b.makeRoom()
	return messages
}

func (b *inbound) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.messages) == 0
}

// entries is how many the messages have.
func (b *inbound) entries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// takeEntries is the entries of the oldest messages: of at least one, if there is any, and of no more than fit.
func (b *inbound) takeEntries(entriesMax, bytesMax int) (entries []*raftpb.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken, bytes := 0, 0
	for _, m := range b.messages {
		size := 0
		for _, e := range m.GetEntries() {
			size += entrySize(e)
		}
		if taken > 0 && (len(entries)+len(m.GetEntries()) > entriesMax || bytes+size > bytesMax) {
			break
		}
		entries, bytes = append(entries, m.GetEntries()...), bytes+size
		taken++
	}
	b.bytes -= bytes
	b.count -= len(entries)
	b.messages = slices.Delete(b.messages, 0, taken)
	b.makeRoom()
	return entries
}

// makeRoom wakes who waits. The caller holds mu.
func (b *inbound) makeRoom() {
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
}

// peerHandler is what the transport hands everything to.
type peerHandler struct{ s *Store }

var _ transport.Handler = peerHandler{}

// Message implements transport.Handler. Proposals wait apart, as they are taken only while there is room for more in flight.
func (h peerHandler) Message(m *raftpb.Message, ended <-chan struct{}) error {
	switch m.GetType() {
	case raftpb.MsgSnap: // comes with ReceiveSnapshot only
		return nil
	case raftpb.MsgProp:
		return h.s.node.forwarded.put(m, ended, h.s.stop)
	}
	return h.s.node.inbound.put(m, ended, h.s.stop)
}

// Delivered implements transport.Handler.
func (h peerHandler) Delivered() { h.s.node.kick() }

// Unreachable implements transport.Handler.
func (h peerHandler) Unreachable(id uint64) {
	n := h.s.node
	n.inbox.put(nodeInput{do: func(rn *raft.RawNode) {
		n.chatter.forget(id)
		if id == h.s.lead.Load().leader {
			n.forget() // what was proposed there and lost is not in flight for ever
		}
		rn.ReportUnreachable(id)
	}})
}

// SnapshotSent implements transport.Handler.
func (h peerHandler) SnapshotSent(id uint64, ok bool) {
	h.s.node.inbox.put(nodeInput{do: func(*raft.RawNode) { h.s.node.snapshotSent(id, ok) }})
}

// ReceiveSnapshot implements transport.Handler.
func (h peerHandler) ReceiveSnapshot(ctx context.Context, m *raftpb.Message, size int64, r io.Reader) error {
	return h.s.receiveSnapshot(ctx, m, size, r)
}

// Removed implements transport.Handler.
func (h peerHandler) Removed() { h.s.leave() }

// Refuses implements transport.Handler.
func (h peerHandler) Refuses(from uint64) error {
	for _, id := range h.s.cluster.Load().Removed() {
		if uint64(id) == from {
			return transport.ErrRemoved
		}
	}
	return nil
}

// Call implements transport.Handler.
func (h peerHandler) Call(ctx context.Context, _ uint64, name string, request []byte) ([]byte, error) {
	return h.s.answer(ctx, name, request)
}

// Members implements transport.Handler.
func (h peerHandler) Members() []byte {
	b, err := json.Marshal(h.s.Members())
	if err != nil {
		panic("marshal members: " + err.Error())
	}
	return b
}

// Versions implements transport.Handler.
func (h peerHandler) Versions() []byte {
	view := h.s.View()
	b, err := json.Marshal(version.Versions{Server: version.Version, Cluster: view.ClusterVersion()})
	if err != nil {
		panic("marshal versions: " + err.Error())
	}
	return b
}

// setPeers tells the transport who the members are.
func (s *Store) setPeers() { s.peers.SetPeers(peersOf(s.Members())) }

func peersOf(members []membership.Member) []transport.Peer {
	peers := make([]transport.Peer, 0, len(members))
	for _, m := range members {
		peers = append(peers, transport.Peer{ID: uint64(m.ID), URLs: m.PeerURLs})
	}
	return peers
}

// connectedToQuorumSince: more than half of the voters, this one included, were reachable all the time since then.
func (s *Store) connectedToQuorumSince(t time.Time) bool {
	voters, connected := s.cluster.Load().Voters(), 0
	for _, m := range voters {
		if uint64(m.ID) == s.id.member || s.connectedSince(m.ID, t) {
			connected++
		}
	}
	return connected > len(voters)/2
}

func (s *Store) connectedSince(id types.ID, t time.Time) bool {
	since := s.peers.ActiveSince(uint64(id))
	return !since.IsZero() && !since.After(t)
}

// overdue is why a proposal with that deadline was not answered in time, as etcd tells it.
func (s *Store) overdue(deadline int64) error {
	began, elected := s.began.Add(time.Duration(deadline)-s.cfg.requestTimeout()), s.began.Add(time.Duration(s.elected.Load()))
	if began.Before(elected) && began.After(elected.Add(-2*s.cfg.electionTimeout())) {
		return ErrTimeoutLeaderFail
	}
	switch leader := s.lead.Load().leader; {
	case leader == raft.None:
	case leader == s.id.member:
		if !s.connectedToQuorumSince(began) {
			return ErrTimeoutConnectionLost
		}
	case !s.connectedSince(types.ID(leader), began):
		return ErrTimeoutConnectionLost
	}
	return ErrTimeout
}
