package transport

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// anyMessage draws a message with every field that goes over the wire, and entries of several sizes.
func anyMessage(t *rapid.T) *raftpb.Message {
	number := rapid.Uint64()
	m := &raftpb.Message{
		Type: rapid.SampledFrom([]raftpb.MessageType{raftpb.MsgApp, raftpb.MsgProp, raftpb.MsgHeartbeat, raftpb.MsgVoteResp, raftpb.MsgReadIndex}).Draw(t, "type").Enum(),
		To:   new(number.Draw(t, "to")), From: new(number.Draw(t, "from")), Term: new(number.Draw(t, "term")), LogTerm: new(number.Draw(t, "logTerm")),
		Index: new(number.Draw(t, "index")), Commit: new(number.Draw(t, "commit")), Vote: new(number.Draw(t, "vote")),
		Reject: new(rapid.Bool().Draw(t, "reject")), RejectHint: new(number.Draw(t, "hint")),
	}
	if rapid.Bool().Draw(t, "context") {
		m.Context = []byte("context")
	}
	for range rapid.IntRange(0, 5).Draw(t, "entries") {
		e := &raftpb.Entry{Type: raftpb.EntryType(rapid.IntRange(0, 2).Draw(t, "kind")).Enum(), Term: new(number.Draw(t, "t")), Index: new(number.Draw(t, "i"))}
		if n := rapid.SampledFrom([]int{0, 1, 100, 1023, 5000}).Draw(t, "size"); n > 0 {
			e.Data = bytes.Repeat([]byte{byte(n)}, n)
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

// decodeAll takes a frame apart.
func decodeAll(b []byte) (probe uint64, out []*raftpb.Message, err error) {
	r, err := newFrameReader(b)
	if err != nil {
		return 0, nil, err
	}
	for {
		m, err := r.next()
		if err == io.EOF {
			return r.probe, out, nil
		}
		if err != nil {
			return 0, nil, err
		}
		out = append(out, m)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			want    []*raftpb.Message
			waiting []outgoing
		)
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			m := anyMessage(t)
			want = append(want, proto.Clone(m).(*raftpb.Message))
			waiting = append(waiting, newOutgoing(m))
		}
		sent := rapid.Uint64().Draw(t, "probe")
		b := appendFrame([]byte("before"), sent, waiting)[len("before"):]
		probe, got, err := decodeAll(b)
		if err != nil || probe != sent || len(got) != len(want) {
			t.Fatalf("probe %d, %d messages, %v; want %d, %d", probe, len(got), err, sent, len(want))
		}
		for i := range got {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("message %d: %v, want %v", i, got[i], want[i])
			}
		}
		// A frame that ends anywhere else is either shorter by whole messages or refused.
		cut := rapid.IntRange(0, len(b)).Draw(t, "cut")
		if _, got, err := decodeAll(b[:cut:cut]); err == nil {
			for i := range got {
				if !proto.Equal(got[i], want[i]) {
					t.Fatalf("cut at %d, message %d: %v", cut, i, got[i])
				}
			}
		} else if !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
	})
}

// FuzzFrame: whatever comes in is decoded or refused, with no more memory than a small multiple of its size.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 7, []outgoing{newOutgoing(appendOf(1, 2, 3, []byte("a"), bytes.Repeat([]byte("b"), 2000)))}))
	f.Add([]byte{0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, got, err := decodeAll(b)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
		for _, m := range got {
			if len(m.GetEntries()) > len(b) {
				t.Fatalf("%d entries out of %d bytes", len(m.GetEntries()), len(b))
			}
		}
	})
}

// TestEntryFields: the format holds all that an entry has. A new field in raftpb needs a new protocol version.
func TestEntryFields(t *testing.T) {
	var names []string
	fields := (&raftpb.Entry{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	slices.Sort(names)
	if want := []string{"Data", "Index", "Term", "Type"}; !slices.Equal(names, want) {
		t.Errorf("an entry has %v, the format %v", names, want)
	}
}

// TestSharedData: data is not copied out of its frame.
func TestSharedData(t *testing.T) {
	data := bytes.Repeat([]byte("d"), 10_000)
	frame := appendFrame(nil, 0, []outgoing{newOutgoing(appendOf(1, 2, 3, data, []byte("small")))})
	_, got, err := decodeAll(frame)
	if err != nil {
		t.Fatal(err)
	}
	in := got[0].GetEntries()[0].GetData()
	at := bytes.Index(frame, data)
	if &in[0] != &frame[at] || cap(in) != len(in) {
		t.Error("the entry does not share the frame, or reaches beyond its data")
	}
}

func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const itemsMax, bytesMax = 3, 1000
		var (
			q     = newQueue(itemsMax, bytesMax)
			model []outgoing
			open  bool
		)
		size := func() (n int) {
			for _, o := range model {
				n += o.bytes
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				o := outgoing{bytes: rapid.SampledFrom([]int{1, 10, 300, 600, 1200}).Draw(t, "bytes"), shell: &raftpb.Message{}}
				want := open && len(model) < itemsMax && (len(model) == 0 || size()+o.bytes <= bytesMax)
				if got := q.put(o); got != want {
					t.Fatalf("put: %v, want %v", got, want)
				}
				if want {
					model = append(model, o)
				}
			},
			"take": func(t *rapid.T) {
				limit, n := rapid.IntRange(0, 1500).Draw(t, "limit"), 0
				for left := limit; n < len(model) && (n == 0 || left >= model[n].bytes); n++ {
					left -= model[n].bytes
				}
				got := q.take(nil, limit)
				if !slices.EqualFunc(got, model[:n], func(a, b outgoing) bool { return a.shell == b.shell }) {
					t.Fatalf("took %d, want %d", len(got), n)
				}
				model = model[n:]
			},
			"shut": func(t *rapid.T) {
				if n := q.shut(); n != len(model) {
					t.Fatalf("dropped %d, want %d", n, len(model))
				}
				model, open = nil, false
			},
			"unshut": func(*rapid.T) { q.unshut(); open = true },
			"": func(t *rapid.T) {
				if q.bytes != size() {
					t.Fatalf("%d bytes, want %d", q.bytes, size())
				}
			},
		})
	})
}

func BenchmarkEncodeFrame(b *testing.B) {
	data := bytes.Repeat([]byte("d"), 400)
	entries := appendOf(1, 2, 3, data, data, data, data, data, data, data, data).Entries
	m := appendOf(1, 2, 3)
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		m.Entries = entries
		out = appendFrame(out[:0], 0, []outgoing{newOutgoing(m)})
	}
}

func BenchmarkDecodeFrame(b *testing.B) {
	data := bytes.Repeat([]byte("d"), 400)
	frame := appendFrame(nil, 0, []outgoing{newOutgoing(appendOf(1, 2, 3, data, data, data, data, data, data, data, data))})
	b.ReportAllocs()
	for b.Loop() {
		if _, got, err := decodeAll(frame); err != nil || len(got) != 1 {
			b.Fatal(err)
		}
	}
}
