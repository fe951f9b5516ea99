package conformance

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

// rawCodec sends and receives messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// kvMethod is a call of KV, which shim decodes by itself.
type kvMethod struct {
	name     string
	request  proto.Message
	response proto.Message
	text     func(*shapes) string
}

var kvMethods = []kvMethod{
	{pb.KV_Put_FullMethodName, &pb.PutRequest{}, &pb.PutResponse{}, func(g *shapes) string { return g.put(true) }},
	{pb.KV_Range_FullMethodName, &pb.RangeRequest{}, &pb.RangeResponse{}, (*shapes).rangeRequest},
	{pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{}, &pb.DeleteRangeResponse{}, (*shapes).span},
	{pb.KV_Txn_FullMethodName, &pb.TxnRequest{}, &pb.TxnResponse{}, func(g *shapes) string { return g.txn(3, kind(g.r.IntN(3))) }},
	{pb.KV_Txn_FullMethodName, &pb.TxnRequest{}, &pb.TxnResponse{}, func(g *shapes) string { return g.txn(1, kind(g.r.IntN(3))) }},
}

// TestRandomMessages sends requests of KV whose bytes were damaged, cut, joined
// and repeated, and compares answers and errors, with their texts.
func TestRandomMessages(t *testing.T) {
	for _, seed := range seeds(1, 2) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			var conns [2]*grpc.ClientConn
			for i, binary := range []string{peers.Path(t, "etcd"), shimPath(t)} {
				s, err := script.Start(binary, t.TempDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(s.Kill)
				if conns[i], err = grpc.NewClient(s.ClientAddress(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
					t.Fatal(err)
				}
			}
			m := &messages{t: t, shapes: &shapes{generator: newGenerator(seed)}, conns: conns}
			for range 2 * *shapesFlag {
				m.step(kvMethods[m.r.IntN(len(kvMethods))])
			}
		})
	}
}

type messages struct {
	*shapes
	t     *testing.T
	conns [2]*grpc.ClientConn // etcd, shim
	sent  [][]byte
}

func (m *messages) step(k kvMethod) {
	req := k.request.ProtoReflect().New().Interface()
	text := k.text(m.shapes)
	if err := prototext.Unmarshal([]byte(text), req); err != nil {
		m.t.Fatalf("%s: %v", text, err)
	}
	b, err := proto.Marshal(req)
	if err != nil {
		m.t.Fatal(err)
	}
	for range m.r.IntN(4) {
		b = damage(m.r, b, m.sent)
	}
	m.sent = append(m.sent, b)
	damaged := k.request.ProtoReflect().New().Interface()
	if proto.Unmarshal(b, damaged) == nil {
		if txn, ok := damaged.(*pb.TxnRequest); ok && crashes(txn) {
			return
		}
	}
	var out [2]string
	for i, c := range m.conns {
		out[i] = m.call(c, k, b)
	}
	if out[0] != out[1] {
		m.t.Fatalf("%s %x\n%s\netcd:\n%s\nshim:\n%s\nrun again with -seed %d", k.name, b, text, out[0], out[1], m.seed)
	}
}

// call answers what came back, without the IDs, and without the blanks that
// protobuf varies on purpose.
func (m *messages) call(c *grpc.ClientConn, k kvMethod, b []byte) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var raw []byte
	if err := c.Invoke(ctx, k.name, &b, &raw, grpc.ForceCodecV2(rawCodec{})); err != nil {
		st := status.Convert(err)
		return fmt.Sprintf("%v: %s", st.Code(), strings.ReplaceAll(st.Message(), "\u00a0", " "))
	}
	resp := k.response.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(raw, resp); err != nil {
		return fmt.Sprintf("%x: %v", raw, err)
	}
	h := resp.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
	if h.GetClusterId() == 0 || h.GetMemberId() == 0 || h.GetRaftTerm() == 0 {
		return fmt.Sprintf("incomplete header: %v", h)
	}
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	m.revision = int(h.Revision)
	return strings.Join(strings.Fields(prototext.Format(resp)), " ")
}

// crashes says whether a txn ends etcd 3.7.3, now or later: see generator.
func crashes(t *pb.TxnRequest) bool {
	var deletes, ignores, open bool
	var walk func(*pb.TxnRequest)
	walk = func(t *pb.TxnRequest) {
		for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
			for _, op := range ops {
				d, p := op.GetRequestDeleteRange(), op.GetRequestPut()
				deletes = deletes || d != nil
				open = open || string(d.GetRangeEnd()) == "\x00"
				ignores = ignores || p.GetIgnoreLease() || p.GetIgnoreValue()
				if nested := op.GetRequestTxn(); nested != nil {
					walk(nested)
				}
			}
		}
	}
	walk(t)
	return deletes && (ignores || open)
}

// damage answers b with one thing changed.
func damage(r *rand.Rand, b []byte, sent [][]byte) []byte {
	b = bytes.Clone(b)
	switch kind := r.IntN(8); {
	case kind == 0 && len(b) > 0: // a bit
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case kind == 1 && len(b) > 0: // the end is missing
		b = b[:r.IntN(len(b))]
	case kind == 2: // a field of any number and wire type
		b = protowire.AppendTag(b, protowire.Number(r.IntN(20)), protowire.Type(r.IntN(7)))
		b = append(b, byte(r.IntN(4)))
	case kind == 3 && len(sent) > 0: // two messages merged
		b = append(b, sent[r.IntN(len(sent))]...)
	case kind == 4: // a number that is longer than it should be
		b = protowire.AppendTag(b, protowire.Number(1+r.IntN(13)), protowire.VarintType)
		b = append(b, bytes.Repeat([]byte{0xff}, 7+r.IntN(4))...)
		b = append(b, byte(r.IntN(3)))
	case kind == 5: // a group
		n := protowire.Number(1 + r.IntN(20))
		b = protowire.AppendTag(b, n, protowire.StartGroupType)
		b = append(protowire.AppendTag(b, 3, protowire.VarintType), 1)
		b = protowire.AppendTag(b, n, protowire.EndGroupType)
	case kind == 6: // a byte more
		i := r.IntN(len(b) + 1)
		b = append(b[:i:i], append([]byte{byte(r.IntN(256))}, b[i:]...)...)
	case kind == 7 && len(sent) > 0: // a message in a field
		b = protowire.AppendTag(b, protowire.Number(1+r.IntN(3)), protowire.BytesType)
		b = protowire.AppendBytes(b, sent[r.IntN(len(sent))])
	}
	return b
}
