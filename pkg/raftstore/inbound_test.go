package raftstore

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// TestInboundEntries: what others proposed is taken in order, whole messages, within the bounds but for one that is larger by itself.
func TestInboundEntries(t *testing.T) {
	b := &inbound{wake: make(chan struct{}, 1), bytesMax: 1 << 20}
	next := uint64(0)
	put := func(sizes ...int) {
		t.Helper()
		m := &raftpb.Message{Type: raftpb.MsgProp.Enum()}
		for _, size := range sizes {
			next++
			m.Entries = append(m.Entries, &raftpb.Entry{Index: new(next), Data: make([]byte, size)})
		}
		if err := b.put(m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := uint64(0)
	take := func(entriesMax, bytesMax, n int) {
		t.Helper()
		entries := b.takeEntries(entriesMax, bytesMax)
		if len(entries) != n {
			t.Fatalf("%d entries, want %d", len(entries), n)
		}
		if got := int(next-want) - n; b.entries() != got {
			t.Fatalf("%d entries are left, want %d", b.entries(), got)
		}
		for _, e := range entries {
			if want++; e.GetIndex() != want {
				t.Fatalf("entry %d, want %d", e.GetIndex(), want)
			}
		}
	}
	put(10)
	put(10, 10)
	put(10, 10, 10)
	take(5, 1<<20, 3)
	put(1000)
	take(5, 1<<20, 4)
	if !b.empty() || b.bytes != 0 {
		t.Fatalf("%d bytes are left", b.bytes)
	}
	put(100)
	put(100)
	take(5, 100, 1)
	take(1, 1, 1)
	put(1, 2, 3)
	take(2, 1<<20, 3)
	if !b.empty() || b.bytes != 0 {
		t.Fatalf("%d bytes are left", b.bytes)
	}
}

// TestInboundFull: who waits for room stops waiting when the stream that the message came on has ended.
func TestInboundFull(t *testing.T) {
	const bytesMax = 1 << 20
	b := &inbound{wake: make(chan struct{}, 1), bytesMax: bytesMax}
	message := func() *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: make([]byte, bytesMax/2+1)}}}
	}
	if err := b.put(message(), nil, nil); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	close(ended)
	if err := b.put(message(), ended, nil); err != errStreamEnded {
		t.Errorf("%v, want %v", err, errStreamEnded)
	}
	if n := len(b.take()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}
