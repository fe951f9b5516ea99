package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// renewal is about what the renewal of a node's lease has in the log: of what differs between nodes, the names and two UIDs, and of what
// differs each time, an ID, a revision and two times.
func renewal(rng *rand.Rand, node, n int) []byte {
	of := rand.New(rand.NewPCG(uint64(node), 7))
	uid := func() string {
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", of.Uint32(), of.UintN(1<<16), of.UintN(1<<12), of.UintN(1<<12), of.Uint64N(1<<48))
	}
	name := fmt.Sprintf("node-%05d", node)
	key := "/registry/leases/kube-node-lease/" + name
	var at [4]byte
	binary.LittleEndian.PutUint32(at[:], uint32(1700000000+n/500))
	b := fmt.Appendf(nil, "%08d\x02\x00\x00", n)
	b = binary.AppendUvarint(b, rng.Uint64())
	b = fmt.Appendf(b, "\x1a\x2e%s\x10", key)
	b = binary.AppendUvarint(b, uint64(n))
	b = fmt.Appendf(b, "%s k8s\x00coordination.k8s.io/v1 Lease metadata %s kube-node-lease %s 2026-11-23T09:00:00Z "+
		"ownerReferences v1 Node %s %s kubelet Update coordination.k8s.io/v1 %s FieldsV1 %s spec %s 40 %s",
		key, name, uid(), name, uid(), at,
		`{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"x\"}":{}}},"f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}`, name, at)
	b = binary.AppendUvarint(b, rng.Uint64N(1e9))
	return append(b, key...)
}

// packable is a record of size bytes, none of them zero, of which half is new.
func packable(n, size int) Record {
	r := numbered(n, size)
	of := rand.New(rand.NewPCG(uint64(n), 9))
	for i := 8; i < len(r.Data); i++ {
		r.Data[i] = 'a' + byte(i)%26
		if i < len(r.Data)/2 {
			r.Data[i] = 1 + byte(of.UintN(255))
		}
	}
	return r
}

func noise(rng *rand.Rand, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}

// TestPack: whatever is packed comes back, also when what was packed in between was taken back, when another packer goes on, and over the
// ends of windows.
func TestPack(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	p, u := new(packer), new(unpacker)
	p.reset()
	var plain, packed, refused int
	for i := range 20_000 {
		var data []byte
		switch rng.IntN(5) {
		case 0:
			data = noise(rng, rng.IntN(300))
		case 1: // one byte, which reaches into itself
			data = bytes.Repeat([]byte{byte(i)}, rng.IntN(3000))
		default:
			data = renewal(rng, rng.IntN(100), i)
			data = data[:rng.IntN(len(data)+1)]
		}
		if rng.IntN(300) == 0 {
			data = append(make([]byte, packBytesMax-100), noise(rng, 100)...)
		}
		p.slide()
		if rng.IntN(10) == 0 {
			window := len(p.window)
			p.pack(nil, renewal(rng, rng.IntN(100), i))
			p.takeBack(window)
		}
		cut, window := rng.IntN(len(data)+1), len(p.window)
		b, ok := p.pack(nil, data[:cut], data[cut:])
		if !ok {
			if refused++; len(p.window) != window {
				t.Fatalf("payload %d stays in the window", i)
			}
			continue
		}
		if len(b) >= len(data) {
			t.Fatalf("%d bytes are packed to %d", len(data), len(b))
		}
		plain, packed = plain+len(data), packed+len(b)
		got, err := u.unpack(b)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("payload %d: %v\n%q\nis\n%q", i, err, data, got)
		}
		u.take(got)
		if rng.IntN(2000) == 0 { // another process goes on
			p = new(packer)
			p.seed(u.window)
		}
		if rng.IntN(5000) == 0 {
			p.forget()
		}
	}
	t.Logf("%d bytes packed to %d, %d payloads not", plain, packed, refused)
	if packed > plain/2 || refused == 0 {
		t.Errorf("%d bytes packed to %d, %d payloads not", plain, packed, refused)
	}
}

// FuzzUnpack: no bytes make an unpacker panic, give more than it may, or take what it gave into the window.
func FuzzUnpack(f *testing.F) {
	p := new(packer)
	p.reset()
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 5 {
		b, _ := p.pack(nil, renewal(rng, i, i))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u := &unpacker{window: bytes.Repeat([]byte("window"), 20)}
		before := len(u.window)
		got, err := u.unpack(b)
		if len(u.window) != before || cap(u.window) > readBytes || err != nil && !errors.Is(err, errPacked) {
			t.Fatalf("%v, window of %d bytes, before %d", err, len(u.window), before)
		}
		if len(got) > packBytesMax {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

// TestUnpackMalformed: each way in which packed bytes can be wrong.
func TestUnpackMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                                  {},
		"length without an end":                    {0x80},
		"length of more than it is":                binary.AppendUvarint(nil, packBytesMax+1),
		"no sequence":                              {1},
		"literals without an end":                  {20, 0xf0},
		"fewer literals":                           {5, 0x50, 'a', 'b'},
		"more literals":                            {1, 0x20, 'a', 'b'},
		"no distance":                              {9, 0x10, 'a'},
		"distance of 0":                            {9, 0x14, 'a', 0, 0},
		"distance behind the start":                {9, 0x14, 'a', 200, 1},
		"match without an end":                     {90, 0x1f, 'a', 1},
		"longer match":                             {7, 0x14, 'a', 1},
		"more behind it":                           {1, 0x10, 'a', 0},
		"a match behind the end":                   {1, 0x11, 'a'},
		"more than a payload may have in literals": append([]byte{1, 0xf0}, bytes.Repeat([]byte{255}, 70)...),
	} {
		u := &unpacker{window: []byte("window")}
		if got, err := u.unpack(b); !errors.Is(err, errPacked) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	u := &unpacker{window: []byte("window")}
	if got, err := u.unpack([]byte{13, 0x12, '-', 7, 0x11, '+', 1}); err != nil || string(got) != "-window++++++" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestPackedLog: renewals of many nodes take a fraction of their bytes, and come back whole over many segments, starts and crashes.
func TestPackedLog(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	mem, o := vfs.NewMem(), testOptions()
	o.SegmentBytes, o.PackBytes = 256<<10, 0
	var want [][]byte
	var used, plain, given int64 // given: what the next Open gives
	for round := range 8 {
		w, got := mustOpen(t, mem, o)
		if len(got) != len(want) {
			t.Fatalf("round %d: %d records, want %d", round, len(got), len(want))
		}
		for i, r := range got {
			if !bytes.Equal(r.Data, want[i]) {
				t.Fatalf("round %d: record %d is %q, want %q", round, i, r.Data, want[i])
			}
		}
		if w.GivenBytes() != given {
			t.Fatalf("round %d: records of %d bytes, they were %d", round, w.GivenBytes(), given)
		}
		size := w.Size()
		for i := range 1000 {
			data := renewal(rng, i%300, len(want))
			if i%100 == 50 { // a batch that is not packed
				data = noise(rng, packBytesMax+1)
				used -= recordBytes(int64(len(data)))
			} else {
				plain += int64(len(data))
			}
			mustAppend(t, w, Record{Type: 4, Data: data})
			given += recordBytes(int64(len(data)))
			want = append(want, data)
		}
		mustSync(t, w)
		used += w.Size() - size
		if round == 4 {
			if err := w.Release(Position{Segment: w.header.number}); err != nil {
				t.Fatal(err)
			}
			all := len(want)
			want = nil
			err := Scan(mem, "wal", func(_ Position, r Record) error { want = append(want, bytes.Clone(r.Data)); return nil })
			if err != nil || len(want) == all {
				t.Fatalf("%d of %d records are left, %v", len(want), all, err)
			}
		}
		if w.GivenBytes() != given {
			t.Fatalf("round %d: records of %d bytes, they were given with %d", round, w.GivenBytes(), given)
		}
		given = 0
		for _, data := range want {
			given += recordBytes(int64(len(data)))
		}
		mem = mem.Crash(vfs.LoseAll)
	}
	t.Logf("%d bytes of payloads take %d", plain, used)
	if used > plain/2 {
		t.Errorf("%d bytes of payloads take %d", plain, used)
	}
}

// TestWhatIsPacked: an append of many records or bytes is not, nor one that would not become smaller.
func TestWhatIsPacked(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	o := testOptions()
	o.SegmentBytes, o.PackBytes = 256<<10, 0
	w, _ := mustOpen(t, vfs.NewMem(), o)
	mustAppend(t, w, Record{Type: 4, Data: renewal(rng, 1, 1)})
	records := func(n, bytes int) (recs []Record) {
		for range n {
			recs = append(recs, Record{Type: 4, Data: make([]byte, bytes)})
		}
		return recs
	}
	for _, c := range []struct {
		name string
		recs []Record
		want bool
	}{
		{"a renewal", []Record{{Type: 4, Data: renewal(rng, 2, 2)}}, true},
		{"noise", []Record{{Type: 4, Data: noise(rng, 500)}}, false},
		{"nothing", records(1, 0), false},
		{"the most records", records(packRecordsMax, 100), true},
		{"too many records", records(packRecordsMax+1, 100), false},
		{"the most bytes", records(2, packBytesMax/2), true},
		{"too many bytes", records(2, packBytesMax/2+8), false},
	} {
		var plain int64
		for _, r := range c.recs {
			plain += recordBytes(int64(len(r.Data)))
		}
		size := w.Size()
		mustAppend(t, w, c.recs...)
		if got := w.Size() - size; (got < plain) != c.want || got > plain {
			t.Errorf("%s takes %d bytes of %d", c.name, got, plain)
		}
	}
}

// TestFormerFormat: a log of the format before, without packed records, is read and gone on with; segments behind it are packed.
func TestFormerFormat(t *testing.T) {
	mem, o := vfs.NewMem(), testOptions()
	o.PackBytes = 0
	w, _ := mustOpen(t, mem, o)
	rewriteVersion(t, mem, w, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	var want [][]byte
	versions := make(map[uint32]int) // of the segments that records were appended to
	for range 3 {
		w, got := mustOpen(t, mem, o)
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i, r := range got {
			if !bytes.Equal(r.Data, want[i]) {
				t.Fatalf("record %d is %q, want %q", i, r.Data, want[i])
			}
		}
		for i := range 20 {
			before, number := w.Size(), w.header.number
			data := renewal(rng, i, len(want))
			mustAppend(t, w, Record{Type: 4, Data: data})
			versions[w.header.version]++
			if grown := w.Size() - before; w.header.number == number && (grown == recordBytes(int64(len(data)))) != (w.header.version == 1) {
				t.Errorf("in version %d a record of %d bytes takes %d", w.header.version, len(data), grown)
			}
			want = append(want, data)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if versions[1] == 0 || versions[formatVersion] == 0 {
		t.Errorf("records were appended to segments of versions %v", versions)
	}
}

// TestPackedInFormerFormat: what says that it is packed where nothing is, is damage.
func TestPackedInFormerFormat(t *testing.T) {
	mem, o := vfs.NewMem(), testOptions()
	o.PackBytes = 0
	w, _ := mustOpen(t, mem, o)
	mustAppend(t, w, Record{Type: 4, Data: make([]byte, 100)})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	block := readAll(t, mem, segmentName("wal", 1))
	header, _, err := decodeSegmentHeader(block[:headerBytes], "", 1, o.SegmentBytes)
	if err != nil {
		t.Fatal(err)
	}
	header.version = 1
	head, seed := header.encode()
	patch(t, mem, segmentName("wal", 1), 0, head)
	e := encoder{seed: seed, chain: seed, packer: new(packer)}
	e.packer.reset()
	e.add(4, 0, make([]byte, 100))
	patch(t, mem, segmentName("wal", 1), headerBytes, e.buf)
	if err := Scan(mem, "wal", func(Position, Record) error { return nil }); !isCorrupt(err) || !strings.Contains(err.Error(), "a version without them") {
		t.Errorf("scan: %v", err)
	}
}

// rewriteVersion makes the empty first segment of an open log one of another version.
func rewriteVersion(t *testing.T, mem *vfs.Mem, w *WAL, version uint32) {
	t.Helper()
	w.header.version = version
	block, seed := w.header.encode()
	patch(t, mem, segmentName("wal", w.header.number), 0, block)
	w.enc.seed, w.enc.chain = seed, seed
}

// BenchmarkPack packs what comes to the log of a cluster of 5,000 nodes: renewals, and what does not pack.
// TestPackedSegmentEnds: a segment ends when a start would have too much of it to unpack, however small it is on the disk.
func TestPackedSegmentEnds(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	first, size := uint64(0), int64(0)
	for n := 1; ; n++ {
		pos := mustAppend(t, w, Record{Type: 1, Data: bytes.Repeat([]byte{byte(n)}, 3000)})
		if first == 0 {
			first = pos.Segment
		}
		if pos.Segment != first {
			break
		}
		size = pos.Offset
		if given := w.GivenBytes(); given > (packedFactorMax+1)*segmentBytesMin {
			t.Fatalf("a segment of %d bytes has records of %d", size, given)
		}
	}
	if size > segmentBytesMin-2<<10 {
		t.Errorf("the segment was at %d bytes: this test is of one that is not full", size)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPack(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var renewals, random [][]byte
	for i := range 5000 {
		renewals = append(renewals, renewal(rng, i, i))
	}
	for range 100 {
		random = append(random, noise(rng, 4000))
	}
	for name, records := range map[string][][]byte{"renewals": renewals, "noise": random} {
		b.Run(name, func(b *testing.B) {
			p := new(packer)
			p.reset()
			dst := make([]byte, 0, 16<<10)
			var packed, n int
			for b.Loop() {
				p.slide()
				out, _ := p.pack(dst, records[n%len(records)])
				packed += len(out)
				n++
			}
			b.SetBytes(int64(len(records[0])))
			b.ReportMetric(float64(packed)/float64(n), "packed-B")
		})
	}
}
