package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestRefusals: each side finds out that the other one is not whom it looks for, with etcd's words, and no message gets through.
func TestRefusals(t *testing.T) {
	checkLeaks(t)
	for _, c := range []struct {
		name   string
		a      func(*Options)                   // of the one who dials
		adjust func(a, b *member) (peer uint64) // before; whom a takes b for
		want   error
	}{
		{"another cluster", func(o *Options) { o.Cluster++ }, nil, ErrClusterMismatch},
		{"another member", nil, func(_, _ *member) uint64 { return 3 }, ErrWrongMember},
		{"unknown", nil, func(_, b *member) uint64 { b.refuse(1, ErrUnknownMember); return 2 }, ErrUnknownMember},
		{"removed", nil, func(_, b *member) uint64 { b.refuse(1, ErrRemoved); return 2 }, ErrRemoved},
	} {
		t.Run(c.name, func(t *testing.T) {
			var adjust []func(*Options)
			if c.a != nil {
				adjust = append(adjust, c.a)
			}
			a, b := newMember(t, 1, adjust...), newMember(t, 2)
			id := uint64(2)
			if c.adjust != nil {
				id = c.adjust(a, b)
			}
			a.tr.SetPeers([]Peer{{1, []string{a.url}}, {id, []string{b.url}}})
			a.send(heartbeat(1, id, 1))
			await(t, "refusal on the side that dials", a.told(c.want.Error()))
			await(t, "refusal on the side that is dialed", b.told(c.want.Error()))
			await(t, "the loss to be told", func() bool { return a.losses(id) > 0 })
			if _, err := a.tr.link(id).dial(b.url); !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
			if _, err := a.tr.link(id).dialSnapshot(t); !errors.Is(err, c.want) {
				t.Errorf("error for a snapshot %v", err)
			}
			if b.count(raftpb.MsgHeartbeat) != 0 || !a.tr.ActiveSince(id).IsZero() {
				t.Error("a message got through")
			}
			if c.want == ErrRemoved {
				await(t, "the news", func() bool { return a.removals() == 1 })
			} else if a.removals() != 0 {
				t.Error("counts as removed")
			}
		})
	}
}

// dialSnapshot opens a snapshot stream as SendSnapshot does.
func (l *link) dialSnapshot(t *testing.T) (*snapshotSender, error) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &snapshotSender{l: l, ctx: ctx, cancel: cancel}
	cc, err := s.connect()
	if err == nil {
		_ = cc.Close()
	}
	return s, err
}

// TestProtocol: members of another protocol, and servers that are none of ours, are told apart.
func TestProtocol(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a)
	cc, err := a.tr.newConn(b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	md := a.tr.introduce(2)
	md.Set(keyProtocol, "1")
	var f frame
	if err := cc.Invoke(metadata.NewOutgoingContext(t.Context(), md), callMethod, bytesFrame(nil), &f); fromStatus(err) != ErrIncompatible {
		t.Errorf("another protocol: %v", err)
	}
	if err := cc.Invoke(t.Context(), "/"+serviceName+"/Unheard", bytesFrame(nil), &f); !errors.Is(fromStatus(err), ErrIncompatible) {
		t.Errorf("unknown method: %v", err)
	}
	// A peer port of etcd is an HTTP server that knows no gRPC.
	web := httptest.NewServer(a.tr.HTTPHandler())
	defer web.Close()
	a.tr.SetPeers([]Peer{{ID: 5, URLs: []string{web.URL}}})
	await(t, "a failure that is not a hang", a.told("cannot connect to peer 5"))
}

// TestRemovalOfConnected: a member that is connected learns its removal from the change of the membership, and its stream ends.
func TestRemovalOfConnected(t *testing.T) {
	checkLeaks(t)
	a, b, c := newMember(t, 1), newMember(t, 2), newMember(t, 3)
	connect(a, b, c)
	for _, m := range []*member{a, b} {
		m.reaches(3)
		c.reaches(m.id)
	}
	peers := []Peer{{1, []string{a.url}}, {2, []string{b.url}}}
	for _, m := range []*member{a, b} {
		m.refuse(3, ErrRemoved)
		m.tr.SetPeers(peers)
	}
	await(t, "the news", func() bool { return c.removals() == 1 })
	await(t, "the links to end", func() bool { return c.tr.ActiveSince(1).IsZero() && c.tr.ActiveSince(2).IsZero() })
	if !a.tr.ActiveSince(3).IsZero() || a.tr.link(3) != nil {
		t.Error("the link to a removed member is there")
	}
	a.send(heartbeat(1, 3, 1), heartbeat(1, 2, 1))
	await(t, "the others go on", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })
	if c.count(raftpb.MsgHeartbeat) != 0 {
		t.Error("a message to a removed member")
	}
	if _, err := c.tr.Call(t.Context(), 1, "x", nil); !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrRemoved) {
		t.Errorf("call of a removed member: %v", err)
	}
}

// TestUnknownDialer: a member that this one does not know yet is let in and can be answered, until it is known or gone.
func TestUnknownDialer(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(b)
	a.tr.SetPeers([]Peer{{1, []string{a.url}}, {2, []string{b.url}}})
	a.send(heartbeat(1, 2, 1))
	await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })
	b.reaches(1)
	connect(b) // a change of the membership that does not bring it
	b.send(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(2)), To: new(uint64(1))})
	await(t, "response", func() bool { return a.count(raftpb.MsgHeartbeatResp) == 1 })
	since := b.tr.ActiveSince(1)
	connect(a, b)
	a.tr.Close()
	await(t, "the link to be lost", func() bool { return b.tr.ActiveSince(1) != since })
	if b.tr.link(1) == nil {
		t.Error("the link to a member went with its streams")
	}

	c := newMember(t, 3)
	c.tr.SetPeers([]Peer{{3, []string{c.url}}, {2, []string{b.url}}})
	b.reaches(3)
	c.tr.Close()
	await(t, "the link to a stranger to go", func() bool { return b.tr.link(3) == nil })
}

// TestURLs: the URLs of a peer are tried in turn, and a change of them takes effect on a link in use.
func TestURLs(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	dead := httptest.NewServer(nil)
	dead.Close()
	strange := newMember(t, 7)
	a.tr.SetPeers([]Peer{{2, []string{"gopher://x", dead.URL, strange.url, b.url}}})
	a.reaches(2)
	since := a.tr.ActiveSince(2)
	a.tr.SetPeers([]Peer{{2, []string{dead.URL, b.url}}})
	a.send(heartbeat(1, 2, 1))
	await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })
	if a.tr.ActiveSince(2) != since {
		t.Error("the link changed although its URL stayed")
	}
	a.tr.SetPeers([]Peer{{2, []string{dead.URL}}})
	await(t, "the old URL to be left", func() bool { return a.tr.ActiveSince(2).IsZero() })
	a.tr.SetPeers([]Peer{{2, []string{b.url}}})
	a.reaches(2)
	a.tr.SetPeers([]Peer{{2, nil}})
	await(t, "nowhere to go", func() bool { return a.tr.ActiveSince(2).IsZero() })
}

// TestCall: answers, errors and bounds of calls.
func TestCall(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	waiting := make(chan struct{}, 2)
	b.onCall = func(ctx context.Context, from uint64, name string, request []byte) ([]byte, error) {
		switch name {
		case "echo":
			return append([]byte{byte(from)}, request...), nil
		case "status":
			return nil, status.Error(codes.NotFound, "no such lease")
		case "wait":
			waiting <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("what is %s?", name)
	}
	if _, err := a.tr.Call(t.Context(), 2, "echo", nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody: %v", err)
	}
	connect(a, b)
	a.reaches(2)
	if got, err := a.tr.Call(t.Context(), 2, "echo", []byte("hello")); err != nil || string(got) != "\x01hello" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := a.tr.Call(t.Context(), 2, "echo", nil); err != nil || string(got) != "\x01" {
		t.Errorf("%q %v", got, err)
	}
	_, err := a.tr.Call(t.Context(), 2, "status", nil)
	if status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such lease" {
		t.Errorf("status: %v", err)
	}
	if _, err := a.tr.Call(t.Context(), 2, "other", nil); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "what is other?") {
		t.Errorf("error: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := a.tr.Call(ctx, 2, "wait", nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	within(t, "the call that its caller gave up", waiting)
	b.refuse(1, ErrRemoved)
	if _, err := a.tr.Call(t.Context(), 2, "echo", nil); !errors.Is(err, ErrRemoved) {
		t.Errorf("refused: %v", err)
	}
	b.refuse(1, nil)
	// A call under way ends with the member that answers it.
	result := make(chan error, 1)
	go func() {
		_, err := a.tr.Call(context.Background(), 2, "wait", nil)
		result <- err
	}()
	within(t, "the call", waiting)
	b.tr.Close()
	if err := within(t, "the end of the call", result); err == nil {
		t.Error("answered")
	}
}

// TestClose: it can be called twice, and nothing begins afterwards.
func TestClose(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	a.tr.Close()
	a.tr.Close()
	connect(a)
	a.send(heartbeat(1, 2, 1))
	a.tr.SendSnapshot(snapshotTo(2), generated(1))
	if _, err := a.tr.Call(t.Context(), 2, "x", nil); err == nil {
		t.Error("answered")
	}
	await(t, "the peer to learn it", func() bool { return b.tr.ActiveSince(1).IsZero() })
}

func TestOptions(t *testing.T) {
	o := Options{ProbeInterval: time.Minute, DialTimeout: -1, QueueBytes: -1, MessageBytesMax: math.MaxInt32, SnapshotBytesPerSecond: 1, SnapshotsReceivedMax: -1}
	o.EnsureDefaults()
	err := o.Validate()
	for _, want := range []string{"must be set", "times", "probe timeout", "queues", "largest message", "snapshot rate", "number of snapshots"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: nothing about %q", err, want)
		}
	}
	if _, err := New(Options{}, nil); err == nil {
		t.Error("a transport without IDs")
	}
	o = Options{Member: 1, Cluster: 1}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

// accepting is a stream that whoever md describes has accepted.
type accepting struct {
	md  metadata.MD
	err error
}

func (s accepting) Header() (metadata.MD, error) { return s.md, s.err }
func (s accepting) RecvMsg(any) error            { return nil }

// TestAcknowledged: a server that accepts everything is not believed.
func TestAcknowledged(t *testing.T) {
	a, b := newMember(t, 1), newMember(t, 2)
	with := func(key, value string) metadata.MD {
		md := b.tr.introduce(1)
		md.Set(key, value)
		return md
	}
	for _, c := range []struct {
		s    accepting
		want error
	}{
		{accepting{md: b.tr.introduce(1)}, nil},
		{accepting{md: with(keyFrom, "3")}, ErrWrongMember},
		{accepting{md: with(keyTo, "3")}, ErrWrongMember},
		{accepting{md: with(keyCluster, "c2")}, ErrClusterMismatch},
		{accepting{md: with(keyProtocol, "1")}, ErrIncompatible},
		{accepting{md: with(keyFrom, "me")}, ErrIncompatible},
		{accepting{}, ErrIncompatible},
		{accepting{err: toStatus(ErrClosed)}, ErrClosed},
	} {
		if _, err := a.tr.acknowledged(c.s, 2); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.s, err, c.want)
		}
	}
}

// TestCallAtOnce: a call right behind SetPeers reaches a member that is there, and does not wait for one that is not.
func TestCallAtOnce(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	b.onCall = func(context.Context, uint64, string, []byte) ([]byte, error) { return []byte("answer"), nil }
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + gone.Addr().String()
	gone.Close()
	a.tr.SetPeers([]Peer{{ID: 2, URLs: []string{b.url}}, {ID: 3, URLs: []string{url}}})
	if answer, err := a.tr.Call(t.Context(), 2, "x", nil); err != nil || string(answer) != "answer" {
		t.Errorf("a call to a member that is there: %q, %v", answer, err)
	}
	if _, err := a.tr.Call(t.Context(), 3, "x", nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a call to a member that is not there: %v", err)
	}
}
