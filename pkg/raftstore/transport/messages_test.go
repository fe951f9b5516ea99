package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
)

func indexes(messages []*raftpb.Message) (out []uint64) {
	for _, m := range messages {
		out = append(out, m.GetIndex())
	}
	return out
}

func manyQueued(o *Options) { o.QueueMessages = 1 << 20 }

// TestOrder: with room in the queues everything arrives, in order on each lane, in both directions at once, whoever writes.
func TestOrder(t *testing.T) {
	ca := newAuthority(t)
	cert := new(atomic.Pointer[tls.Certificate])
	cert.Store(ca.issue("member"))
	for name, adjust := range map[string]func(*Options){
		"senders":       func(*Options) {},
		"plain sockets": func(o *Options) { o.Dial = nil },
		"TLS": func(o *Options) {
			o.Dial, o.ServerTLS, o.ClientTLS = nil, ca.server(cert), func() *tls.Config { return ca.client(cert.Load()) }
		},
	} {
		t.Run(name, func(t *testing.T) { testOrder(t, adjust) })
	}
}

func testOrder(t *testing.T, adjust func(*Options)) {
	checkLeaks(t)
	const n = 5000
	a, b := newMember(t, 1, manyQueued, adjust), newMember(t, 2, manyQueued, adjust)
	connect(a, b)
	var wg sync.WaitGroup
	for _, pair := range [][2]*member{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		wg.Go(func() {
			for i := range uint64(n) {
				from.send(appendOf(from.id, to.id, i, []byte("data"), bytes.Repeat([]byte("x"), int(i%3000))), heartbeat(from.id, to.id, i))
			}
		})
	}
	wg.Wait()
	for _, m := range []*member{a, b} {
		for _, typ := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat} {
			await(t, "all messages", func() bool { return m.count(typ) == n })
			if got := indexes(m.messages(typ)); !slices.IsSorted(got) {
				t.Errorf("%v out of order", typ)
			}
		}
		for _, got := range m.messages(raftpb.MsgApp) {
			if want := int(got.GetIndex() % 3000); len(got.GetEntries()) != 2 || len(got.GetEntries()[1].GetData()) != want {
				t.Fatalf("entries of %v", got)
			}
		}
	}
	if a.losses(2)+b.losses(1) != 0 {
		t.Error("a peer was unreachable")
	}
}

// TestStalledPeer: appends that a peer does not take fill their queue to its bound and no further, what comes in beyond is dropped and
// reported, heartbeats pass, and in the end the peer has got what was queued, in order.
func TestStalledPeer(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, func(o *Options) { o.QueueMessages, o.QueueBytes = 100, 1<<20 }), newMember(t, 2)
	release := make(chan struct{})
	b.onMessage = func(m *raftpb.Message) error {
		if m.GetType() == raftpb.MsgApp {
			<-release
		}
		return nil
	}
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	connect(a, b)
	a.reaches(2)
	q := a.tr.link(2).queues[laneAppend]
	data := bytes.Repeat([]byte("x"), 20_000)
	for i := uint64(0); a.losses(2) == 0; i++ {
		a.send(appendOf(1, 2, i, data))
		q.mu.Lock()
		items, size := len(q.items)-q.head, q.bytes
		q.mu.Unlock()
		if items > 100 || size > 1<<20 {
			t.Fatalf("%d messages of %d bytes are queued", items, size)
		}
		time.Sleep(10 * time.Microsecond) // lets the sender fill what is behind the queue
	}
	since := a.tr.ActiveSince(2)
	for i := range uint64(50) {
		a.send(heartbeat(1, 2, i))
		await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == int(i)+1 })
	}
	free()
	await(t, "appends", func() bool { return b.count(raftpb.MsgApp) >= 50 })
	if got := indexes(b.messages(raftpb.MsgApp)); !slices.IsSorted(got) || got[0] != 0 {
		t.Errorf("out of order: %v", got)
	}
	if a.tr.ActiveSince(2) != since {
		t.Error("the link was lost")
	}
}

// TestReconnect: a link that is cut comes back, and messages reach the peer again.
func TestReconnect(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	for range 5 {
		since := a.tr.ActiveSince(2)
		lost := a.losses(2)
		a.net.cut()
		await(t, "a new link", func() bool { s := a.tr.ActiveSince(2); return !s.IsZero() && s != since })
		await(t, "the loss to be told", func() bool { return a.losses(2) > lost })
		n := b.count(raftpb.MsgHeartbeat)
		a.send(heartbeat(1, 2, 1))
		await(t, "a heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) > n })
	}
	if !a.told("lost peer 2")() {
		t.Error("no event")
	}
}

// TestSubsequence: whatever happens to the connections, what arrives over one of them is a part without holes of what was sent, and over
// all of them the order is kept.
func TestSubsequence(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, manyQueued), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	const n = 20_000
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				a.net.cut()
			}
		}
	})
	for i := range uint64(n) {
		a.send(appendOf(1, 2, i, []byte("x")), heartbeat(1, 2, i))
		if i%500 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	a.reaches(2)
	for last := uint64(n); ; last++ {
		a.send(appendOf(1, 2, last), heartbeat(1, 2, last))
		if got := indexes(b.messages(raftpb.MsgApp)); len(got) > 0 && got[len(got)-1] >= n {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, typ := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat} {
		got, holes := indexes(b.messages(typ)), 0
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] {
				t.Fatalf("%v: %d after %d", typ, got[i], got[i-1])
			}
			if got[i] != got[i-1]+1 {
				holes++
			}
		}
		// A hole is the end of a connection, or the time until the next.
		if dials := int(a.net.dials.Load()); holes > 2*dials {
			t.Errorf("%v: %d holes with %d connections", typ, holes, dials)
		}
	}
}

// TestSilentPeer: a link on which nothing comes back is given up and dialed anew, until the network is well again.
func TestSilentPeer(t *testing.T) {
	checkLeaks(t)
	short := func(o *Options) {
		o.ProbeInterval, o.ProbeTimeout, o.DialTimeout = 20*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
	}
	a, b := newMember(t, 1, short), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	a.net.stall()
	await(t, "the link to be given up", a.told("does not answer probes"))
	await(t, "attempts", a.told("no answer in time"))
	if !a.tr.ActiveSince(2).IsZero() {
		t.Error("the peer counts as active")
	}
	a.net.heal()
	a.reaches(2)
}

// TestBigEntry: entries much larger than any window.
func TestBigEntry(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2, func(o *Options) { o.MessageBytesMax = 20 << 20 })
	connect(a, b)
	a.reaches(2)
	big := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	for i := range uint64(3) {
		a.send(appendOf(1, 2, i, big, []byte("small")))
	}
	await(t, "big entries", func() bool { return b.count(raftpb.MsgApp) == 3 })
	for _, m := range b.messages(raftpb.MsgApp) {
		if e := m.GetEntries(); !bytes.Equal(e[0].GetData(), big) || string(e[1].GetData()) != "small" {
			t.Fatal("data differs")
		}
	}
	b.send(appendOf(2, 1, 9, big, big, big))
	await(t, "the drop of a message too large", b.told("too large"))
	await(t, "the loss to be told", func() bool { return b.losses(1) > 0 })
}

// TestForgedMessages: a peer speaks for itself only, but for what followers pass on to the leader.
func TestForgedMessages(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	for _, passed := range []raftpb.MessageType{raftpb.MsgTransferLeader, raftpb.MsgProp, raftpb.MsgReadIndex} {
		a.send(&raftpb.Message{Type: passed.Enum(), From: new(uint64(7)), To: new(uint64(2)), Entries: []*raftpb.Entry{{}}})
		await(t, passed.String(), func() bool { return b.count(passed) == 1 })
	}
	l := a.tr.link(2)
	l.send(heartbeat(7, 2, 1))
	await(t, "refusal", a.told("malformed frame"))
	a.reaches(2)
	l.send(heartbeat(1, 3, 1))
	await(t, "the link to be lost twice", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		n := 0
		for _, e := range a.events {
			if d, ok := e.(Disconnected); ok && errors.Is(d.Err, errMalformed) {
				n++
			}
		}
		return n == 2
	})
	if b.count(raftpb.MsgHeartbeat) != 0 {
		t.Error("a forged message arrived")
	}
}

// TestHandlerError: a handler that cannot go on ends the stream, and the peer comes back.
func TestHandlerError(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	var failed atomic.Bool
	b.onMessage = func(*raftpb.Message) error {
		if failed.CompareAndSwap(false, true) {
			return errors.New("not now")
		}
		return nil
	}
	connect(a, b)
	a.reaches(2)
	a.send(heartbeat(1, 2, 1))
	await(t, "the reason", a.told("not now"))
	a.reaches(2)
	a.send(heartbeat(1, 2, 2))
	await(t, "a heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })
}

// TestHandlerBlocked: a message that is not taken holds its lane up until the peer has connected anew, and not for longer.
func TestHandlerBlocked(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	b.blocks = make(chan *raftpb.Message, 2)
	connect(a, b)
	a.reaches(2)
	a.send(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1))})
	<-b.blocks
	a.net.cut()
	<-b.blocks
	a.reaches(2)
}

func TestSnapshotAmongMessages(t *testing.T) {
	a := newMember(t, 1)
	defer func() {
		if recover() == nil {
			t.Error("taken")
		}
	}()
	a.send(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: new(uint64(2))})
}

// TestMetrics: the names and labels are etcd's, and traffic moves them.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	a, b := newMember(t, 1, func(o *Options) { o.Registerer = reg }), newMember(t, 0x2b)
	connect(a, b)
	a.reaches(b.id)
	a.send(heartbeat(1, b.id, 1))
	b.send(heartbeat(b.id, 1, 1))
	await(t, "heartbeats", func() bool { return a.count(raftpb.MsgHeartbeat)+b.count(raftpb.MsgHeartbeat) == 2 })
	b.onSnapshot = discard
	a.tr.SendSnapshot(snapshotTo(b.id), generated(10))
	if !within(t, "snapshot", a.sent) {
		t.Error("snapshot failed")
	}
	a.onSnapshot = discard
	b.tr.SendSnapshot(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(b.id), To: new(uint64(1))}, generated(10))
	if !within(t, "snapshot", b.sent) {
		t.Error("snapshot failed")
	}
	a.net.cut()
	value := func(name string) float64 { return gathered(t, reg)[name] }
	await(t, "a disconnection", func() bool { return value("etcd_network_disconnected_peers_total{Local=1,Remote=2b}") > 0 })
	a.reaches(b.id)
	for _, name := range []string{
		"etcd_network_active_peers{Local=1,Remote=2b}",
		"etcd_network_peer_sent_bytes_total{To=2b}", "etcd_network_peer_received_bytes_total{From=2b}",
		"etcd_network_snapshot_send_success{To=2b}", "etcd_network_snapshot_send_total_duration_seconds{To=2b}",
		"etcd_network_snapshot_receive_success{From=2b}", "etcd_network_snapshot_receive_total_duration_seconds{From=2b}",
		"etcd_network_peer_round_trip_time_seconds{To=2b}",
	} {
		await(t, name, func() bool { return value(name) > 0 })
	}
	all := gathered(t, reg)
	for _, name := range []string{"etcd_network_snapshot_send_inflights_total{To=2b}", "etcd_network_snapshot_receive_inflights_total{From=2b}"} {
		if v, ok := all[name]; !ok || v != 0 {
			t.Errorf("%s: %v %v", name, v, ok)
		}
	}
	if _, ok := all["etcd_network_peer_sent_failures_total{To=2b}"]; !ok {
		t.Error("no counter of failures")
	}
}

// gathered are the values by name and labels; of a histogram, the count.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// BenchmarkSend is one append there and one response back, 64 under way.
func BenchmarkSend(b *testing.B) {
	x, y := newMember(b, 1), newMember(b, 2)
	places := make(chan struct{}, 64)
	y.onMessage = func(m *raftpb.Message) error {
		y.send(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Index: m.Index})
		return nil
	}
	x.onMessage = func(*raftpb.Message) error { <-places; return nil }
	connect(x, y)
	x.reaches(2)
	y.reaches(1)
	data := bytes.Repeat([]byte("x"), 400)
	b.ReportAllocs()
	for b.Loop() {
		places <- struct{}{}
		x.send(appendOf(1, 2, 1, data))
	}
}

// TestReplacedStream: a new connection does not get through while the handler has a message of the last one, and then order is kept.
func TestReplacedStream(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1, func(o *Options) { o.DialTimeout = 100 * time.Millisecond }), newMember(t, 2)
	release, began := make(chan struct{}), make(chan struct{}, 64)
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	b.onMessage = func(*raftpb.Message) error {
		began <- struct{}{}
		<-release
		return nil
	}
	connect(a, b)
	a.reaches(2)
	a.send(appendOf(1, 2, 1))
	within(t, "the first append", began)
	a.net.cut()
	await(t, "attempts that wait for the handler", a.told(errDialTimeout.Error()))
	if len(began) != 0 {
		t.Error("the handler has a second message of the same lane")
	}
	free()
	a.reaches(2)
	a.send(appendOf(1, 2, 2))
	await(t, "the second append", func() bool { return b.count(raftpb.MsgApp) >= 2 })
	if got := indexes(b.messages(raftpb.MsgApp)); !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
}
