package mvcc

import (
	"bytes"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func drawInt(t *rapid.T, name string) int64 {
	return rapid.OneOf(rapid.Int64Range(1, 300), rapid.Int64Range(1, math.MaxInt64)).Draw(t, name)
}

// TestEncode checks that versions encode as protobuf does, and read back.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv := &mvccpb.KeyValue{
			Key:            rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key"),
			Value:          rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 3), rapid.SliceOfN(rapid.Byte(), 100, 20000)).Draw(t, "value"),
			CreateRevision: drawInt(t, "create"),
			Version:        drawInt(t, "num"),
			Lease:          rapid.SampledFrom([]int64{0, 1, 127, 128, math.MaxInt64, -1}).Draw(t, "lease"),
		}
		kv.ModRevision = kv.CreateRevision + rapid.Int64Range(0, math.MaxInt64-kv.CreateRevision).Draw(t, "later")
		want, err := proto.Marshal(kv)
		if err != nil {
			t.Fatal(err)
		}
		v := newPut(kv.Key, kv.Value, Revision(kv.CreateRevision), Revision(kv.ModRevision), 3, kv.Version, LeaseID(kv.Lease))
		checkVersion(t, v, kv, want)
		row := RowKey{Main: Revision(kv.ModRevision), Sub: 3}
		// The lease first is legal, but not how etcd writes it.
		leaseFirst := append(protowire.AppendVarint([]byte{tagLease}, uint64(kv.Lease)), want...)
		for _, in := range [][]byte{want, leaseFirst} {
			p, err := parsePut(row, in, false)
			if err != nil {
				t.Fatal(err)
			}
			checkVersion(t, p, kv, want)
		}
	})
}

func checkVersion(t *rapid.T, v *Version, kv *mvccpb.KeyValue, want []byte) {
	if !bytes.Equal(v.KV(), want) {
		t.Fatalf("encoded %x, want %x", v.KV(), want)
	}
	if !bytes.Equal(v.Key(), kv.Key) || !bytes.Equal(v.Value(), kv.Value) || int64(v.Mod()) != kv.ModRevision ||
		int64(v.Create()) != kv.CreateRevision || v.Num() != kv.Version || int64(v.Lease()) != kv.Lease || v.Sub() != 3 {
		t.Fatalf("read back %s, want %v", renderVersion(v), kv)
	}
	if cap(v.Key()) != len(v.Key()) || cap(v.Value()) != len(v.Value()) {
		t.Fatal("an append to key or value would write into the encoding")
	}
	for _, withLease := range []bool{false, true} {
		bare := &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version}
		if withLease {
			bare.Lease = kv.Lease
		}
		want, _ := proto.Marshal(bare)
		if got := v.KeyOnlyKV(withLease); !bytes.Equal(got, want) {
			t.Fatalf("key only (lease %v) %x, want %x", withLease, got, want)
		}
	}
}

func TestEncodeTombstone(t *testing.T) {
	for _, n := range []int{1, 127, 128, 20000} {
		key := bytes.Repeat([]byte{'k'}, n)
		v := newTombstone(key, 1<<40, 2)
		event, _ := proto.Marshal(&mvccpb.KeyValue{Key: key, ModRevision: 1 << 40})
		row, _ := proto.Marshal(&mvccpb.KeyValue{Key: key})
		if !bytes.Equal(v.KV(), event) || !bytes.Equal(v.RowValue(), row) || !bytes.Equal(v.Key(), key) || v.Value() != nil {
			t.Fatalf("tombstone of a %d byte key: %x and row %x", n, v.KV(), v.RowValue())
		}
		p, err := parseTombstone(v.RowKey(), row)
		if err != nil || !bytes.Equal(p.KV(), event) || !p.Tombstone() {
			t.Fatalf("parsed tombstone: %v %v", p, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	ok := newPut([]byte("k"), []byte("v"), 3, 5, 0, 2, 0).KV()
	noKey, _ := proto.Marshal(&mvccpb.KeyValue{CreateRevision: 3, ModRevision: 5})
	noCreate, _ := proto.Marshal(&mvccpb.KeyValue{Key: []byte("k"), ModRevision: 5})
	for name, c := range map[string]struct {
		row   RowKey
		value []byte
	}{
		"cut short":       {RowKey{Main: 5}, ok[:len(ok)-1]},
		"other revision":  {RowKey{Main: 6}, ok},
		"no key":          {RowKey{Main: 5}, noKey},
		"no create":       {RowKey{Main: 5}, noCreate},
		"tombstone empty": {RowKey{Main: 5, Tombstone: true}, nil},
		"tombstone cut":   {RowKey{Main: 5, Tombstone: true}, []byte{tagKey, 9, 'k'}},
	} {
		if v, err := parseRow(c.row, c.value, false); err == nil {
			t.Errorf("%s: parsed as %s", name, renderVersion(v))
		}
	}
}

func TestRowKey(t *testing.T) {
	for _, k := range []RowKey{{Main: 1}, {Main: 1 << 40, Sub: 7}, {Main: 2, Sub: 1 << 31, Tombstone: true}} {
		b := k.Append(nil)
		got, err := ParseRowKey(b)
		if err != nil || got != k {
			t.Errorf("%v came back as %v, %v", k, got, err)
		}
		for _, bad := range [][]byte{b[:16], append(bytes.Clone(b), 'x'), append([]byte{0xff}, b[1:]...)} {
			if got, err := ParseRowKey(bad); err == nil {
				t.Errorf("%x parsed as %v", bad, got)
			}
		}
	}
}

// TestFrame checks that a framed request is one that protobuf understands.
func TestFrame(t *testing.T) {
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7}
	body, _ := proto.Marshal(put)
	r, err := Decode(Frame(nil, 42, KindPut, body))
	if err != nil || !proto.Equal(r, &pb.InternalRaftRequest{ID: 42, Put: put}) {
		t.Fatalf("framed put decodes to %v, %v", r, err)
	}
	d := (&pb.InternalRaftRequest{}).ProtoReflect().Descriptor().Fields()
	for k, name := range map[Kind]string{
		KindPut: "put", KindDeleteRange: "delete_range", KindTxn: "txn", KindCompaction: "compaction",
		KindLeaseGrant: "lease_grant", KindLeaseRevoke: "lease_revoke", KindAlarm: "alarm",
		KindLeaseCheckpoint: "lease_checkpoint", KindClusterVersion: "cluster_version_set",
		KindMemberAttr: "cluster_member_attr_set", KindDowngradeInfo: "downgrade_info_set",
	} {
		f := d.ByNumber(protowire.Number(k))
		if f == nil || string(f.Name()) != name {
			t.Errorf("%v is field %v, want %s", k, f, name)
		}
		if k.String() == "" {
			t.Errorf("%d has no name", k)
		}
	}
	if _, err := Decode([]byte{0xff}); err == nil {
		t.Error("decoded garbage")
	}
}

// TestLeaseExpiryTerm checks that an expiry counts in its own term only, also
// after it went over the wire.
func TestLeaseExpiryTerm(t *testing.T) {
	framed := FrameLeaseExpiry(nil, 9, 5, 3)
	request := &pb.InternalRaftRequest{ID: 9, LeaseRevoke: &pb.LeaseRevokeRequest{ID: 5}}
	request.ProtoReflect().SetUnknown(appendTerm(nil, 3))
	marshalled, err := proto.Marshal(request)
	if err != nil || !bytes.Equal(framed, marshalled) {
		t.Fatalf("framed %x, marshalled %x, %v", framed, marshalled, err)
	}
	r, err := Decode(framed)
	if err != nil || r.LeaseRevoke.GetID() != 5 || r.ID != 9 {
		t.Fatalf("decoded %v, %v", r, err)
	}
	for term, want := range map[uint64]error{2: ErrStaleExpiry, 3: nil, 4: ErrStaleExpiry} {
		s := New(Options{})
		s.Apply(Entry{Index: 1, Term: 1, Request: &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 5, TTL: 9}}})
		if res := s.Apply(Entry{Index: 2, Term: term, Request: r}); res.Err != want {
			t.Errorf("expiry of term 3 in term %d: %v, want %v", term, res.Err, want)
		}
		if _, there := s.Publish().Lease(5); there != (want != nil) {
			t.Errorf("expiry of term 3 in term %d: lease there %v", term, there)
		}
	}
	res := New(Options{}).Apply(Entry{Index: 1, Term: 8, Request: &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 5}}})
	if res.Err != ErrLeaseNotFound {
		t.Errorf("a client's revoke has no term: %v", res.Err)
	}
}
