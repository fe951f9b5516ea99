package transport

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

func snapshotTo(to uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: &to,
		Snapshot: &raftpb.Snapshot{Data: []byte("members"), Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(42)), Term: new(uint64(3))}}}
}

// generated opens size bytes that nobody can guess.
func generated(size int64) func(context.Context) (io.ReadCloser, int64, error) {
	return func(context.Context) (io.ReadCloser, int64, error) { return io.NopCloser(noise(size)), size, nil }
}

func noise(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
}

func sumOf(r io.Reader) (uint32, int64, error) {
	h := crc32.NewIEEE()
	n, err := io.Copy(h, r)
	return h.Sum32(), n, err
}

func discard(_ context.Context, _ *raftpb.Message, _ int64, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// stored is what a receiver made of a snapshot.
type stored struct {
	sum  uint32
	n    int64
	size int64
	err  error
	msg  *raftpb.Message
}

// store makes the member report what it receives.
func (m *member) store() <-chan stored {
	c := make(chan stored, 16)
	m.onSnapshot = func(_ context.Context, msg *raftpb.Message, size int64, r io.Reader) error {
		sum, n, err := sumOf(r)
		c <- stored{sum, n, size, err, msg}
		return err
	}
	return c
}

// TestSnapshot: sizes around the chunks, and the large one while heartbeats pass.
func TestSnapshot(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	got := b.store()
	connect(a, b)
	a.reaches(2)
	for _, size := range []int64{0, 1, snapshotChunkBytes - 1, snapshotChunkBytes, snapshotChunkBytes + 1, 100 << 20} {
		a.tr.SendSnapshot(snapshotTo(2), generated(size))
		for sent := false; !sent; {
			n := b.count(raftpb.MsgHeartbeat)
			a.send(heartbeat(1, 2, 1))
			await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) > n })
			select {
			case ok := <-a.sent:
				if sent = ok; !ok {
					t.Fatalf("%d bytes: failed", size)
				}
			default:
			}
		}
		want, _, _ := sumOf(noise(size))
		s := within(t, "snapshot", got)
		if s.err != nil || s.sum != want || s.n != size || s.size != size || s.msg.GetSnapshot().GetMetadata().GetIndex() != 42 || string(s.msg.GetSnapshot().GetData()) != "members" {
			t.Fatalf("%d bytes: %+v, want sum %08x", size, s, want)
		}
	}
}

// TestSnapshotCut: a connection that breaks in the middle fails on both sides, and the next attempt goes through.
func TestSnapshotCut(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	got := b.store()
	connect(a, b)
	a.reaches(2)
	a.net.cutAfter.Store(50 << 20)
	a.tr.SendSnapshot(snapshotTo(2), generated(100<<20))
	if within(t, "the sender's verdict", a.sent) {
		t.Error("sent")
	}
	if s := within(t, "the receiver's verdict", got); s.err == nil || s.n == 0 || s.n >= 100<<20 {
		t.Errorf("received %d bytes: %v", s.n, s.err)
	}
	a.net.cutAfter.Store(0)
	a.tr.SendSnapshot(snapshotTo(2), generated(1<<20))
	if !within(t, "the second attempt", a.sent) {
		t.Error("not sent")
	}
	if s := within(t, "snapshot", got); s.err != nil {
		t.Error(s.err)
	}
	await(t, "events", func() bool {
		return a.told("sent snapshot to peer 2 at index 42: failed")() && b.told("received snapshot from peer 1 at index 42: failed")() &&
			b.told("received snapshot from peer 1 at index 42: 1048576 bytes")()
	})
}

// TestSnapshotFailures: each side can fail, and the other one learns it.
func TestSnapshotFailures(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	fails := func(what string, open func(context.Context) (io.ReadCloser, int64, error)) {
		t.Helper()
		a.tr.SendSnapshot(snapshotTo(2), open)
		if within(t, what, a.sent) {
			t.Errorf("%s: sent", what)
		}
		await(t, "the place", func() bool {
			b.tr.mu.Lock()
			defer b.tr.mu.Unlock()
			return b.tr.incoming[incomingKey{1, laneSnapshot}] == nil
		})
	}
	got := b.store()
	fails("a source that does not open", func(context.Context) (io.ReadCloser, int64, error) { return nil, 0, errors.New("no disk") })
	fails("a source that ends early", func(context.Context) (io.ReadCloser, int64, error) {
		return io.NopCloser(noise(300_000)), 300_001, nil
	})
	if s := within(t, "receiver", got); s.err == nil {
		t.Error("a short snapshot was received")
	}
	b.onSnapshot = func(_ context.Context, _ *raftpb.Message, size int64, r io.Reader) error {
		_, _ = io.CopyN(io.Discard, r, size/2)
		return nil
	}
	fails("a receiver that does not read to the end", generated(1<<20))
	b.onSnapshot = func(context.Context, *raftpb.Message, int64, io.Reader) error { return errors.New("disk full") }
	fails("a receiver that cannot store", generated(10<<20))
	await(t, "the reason", a.told("disk full"))
	a.tr.SendSnapshot(snapshotTo(77), generated(1))
	if within(t, "nobody", a.sent) {
		t.Error("sent to nobody")
	}
}

// TestSnapshotChecksum: a byte that changes on the way is found, before the last bytes are given out.
func TestSnapshotChecksum(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	got := b.store()
	connect(a, b)
	a.reaches(2)
	l := a.tr.link(2)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s := &snapshotSender{l: l, ctx: ctx, cancel: cancel, sum: 1, stall: time.NewTimer(time.Hour)} // the sum of other data
	if err := s.run(snapshotTo(2), generated(1<<20)); !errors.Is(err, ErrChecksum) {
		t.Errorf("sender: %v", err)
	}
	if s := within(t, "receiver", got); !errors.Is(s.err, ErrChecksum) || s.n >= s.size {
		t.Errorf("receiver: %d bytes, %v", s.n, s.err)
	}
}

// TestSnapshotBounds: one to a peer, as many from all as the receiver allows, and the same sender's next one replaces its last.
func TestSnapshotBounds(t *testing.T) {
	checkLeaks(t)
	r := newMember(t, 9, func(o *Options) { o.SnapshotsReceivedMax = 2 })
	began, release := make(chan uint64, 16), make(chan struct{})
	r.onSnapshot = func(ctx context.Context, m *raftpb.Message, size int64, in io.Reader) error {
		began <- m.GetFrom()
		select {
		case <-release:
			return discard(ctx, m, size, in)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	members := []*member{r}
	for id := range uint64(3) {
		members = append(members, newMember(t, id+1))
	}
	connect(members...)
	send := func(m *member) {
		m.reaches(9)
		m.tr.SendSnapshot(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &m.id, To: new(uint64(9))}, generated(1<<20))
	}
	send(members[1])
	send(members[2])
	within(t, "first", began)
	within(t, "second", began)
	send(members[3])
	if within(t, "third", members[3].sent) {
		t.Error("a third snapshot was taken")
	}
	await(t, "the reason", members[3].told(ErrTooManySnapshots.Error()))
	send(members[1]) // while its first is under way
	if within(t, "another one to the same peer", members[1].sent) {
		t.Error("two to one peer at a time")
	}
	// A sender that lost its connection does not wait for the receiver to notice.
	members[1].tr.link(9).sending.Store(false)
	send(members[1])
	if id := within(t, "the next of the same sender", began); id != 1 {
		t.Errorf("from %d", id)
	}
	if within(t, "the replaced one", members[1].sent) {
		t.Error("the replaced snapshot succeeded")
	}
	close(release)
	for _, m := range members[1:3] {
		if !within(t, "the end", m.sent) {
			t.Errorf("snapshot of %d failed", m.id)
		}
	}
}

// TestSnapshotStalls: neither side waits for ever.
func TestSnapshotStalls(t *testing.T) {
	checkLeaks(t)
	short := func(o *Options) { o.SnapshotStallTimeout = 200 * time.Millisecond }
	a, b := newMember(t, 1, short), newMember(t, 2)
	hold := make(chan struct{})
	b.onSnapshot = func(ctx context.Context, _ *raftpb.Message, _ int64, _ io.Reader) error {
		<-ctx.Done()
		close(hold)
		return ctx.Err()
	}
	connect(a, b)
	a.reaches(2)
	a.tr.SendSnapshot(snapshotTo(2), generated(100<<20))
	if within(t, "a receiver that does not read", a.sent) {
		t.Error("sent")
	}
	within(t, "the end of the receiver's context", hold)
	if !a.told(errStalled.Error())() {
		t.Error("no reason")
	}

	c, d := newMember(t, 3), newMember(t, 4, short)
	got := d.store()
	connect(c, d)
	c.reaches(4)
	c.tr.SendSnapshot(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(3)), To: new(uint64(4))},
		func(ctx context.Context) (io.ReadCloser, int64, error) {
			pr, pw := io.Pipe()
			context.AfterFunc(ctx, func() { _ = pw.CloseWithError(ctx.Err()) })
			go func() { _, _ = io.Copy(pw, noise(1<<20)) }()
			return pr, 2 << 20, nil
		})
	if s := within(t, "a sender that does not send", got); s.err == nil {
		t.Error("received")
	}
	c.tr.Close() // its source never ends by itself
}

// TestSnapshotPace: the rate decides how long a sender waits, and an end of the attempt ends the wait.
func TestSnapshotPace(t *testing.T) {
	a := newMember(t, 1, func(o *Options) { o.SnapshotBytesPerSecond = 1 << 20 })
	ctx, cancel := context.WithCancel(t.Context())
	s := &snapshotSender{l: &link{t: a.tr}, ctx: ctx, stall: time.NewTimer(time.Hour), sent: 10 << 20}
	if err := s.pace(time.Now().Add(-time.Minute)); err != nil {
		t.Error("waits although it is late: ", err)
	}
	cancel()
	if err := s.pace(time.Now()); !errors.Is(err, context.Canceled) {
		t.Error("does not wait: ", err)
	}
}
