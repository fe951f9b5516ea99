package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/test/internal/protofields"
)

// watchBatch is what the client reads of a WatchResponse. Decoding all of it
// would cost the client more than most servers need to send it.
type watchBatch struct {
	created, canceled bool
	reason            string
	events            int
	// seqs are the numbers that the events' values begin with, see stamped.
	seqs []uint64
	// wantSeqs is set by the reader.
	wantSeqs bool
}

// watchCodec encodes requests as usual and decodes into *watchBatch.
type watchCodec struct{ proto encoding.CodecV2 }

func (c watchCodec) Name() string                           { return "proto" }
func (c watchCodec) Marshal(v any) (mem.BufferSlice, error) { return c.proto.Marshal(v) }

func (c watchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*watchBatch)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return b.parse(buf.ReadOnlyData())
}

// parse reads fields 3 created, 4 canceled, 6 cancel_reason and 11 events.
func (b *watchBatch) parse(data []byte) error {
	*b = watchBatch{seqs: b.seqs[:0], wantSeqs: b.wantSeqs}
	return protofields.Each(data, func(num protowire.Number, data []byte, n uint64) error {
		switch num {
		case 3:
			b.created = n != 0
		case 4:
			b.canceled = n != 0
		case 6:
			b.reason = string(data)
		case 11:
			b.events++
			if b.wantSeqs {
				return b.parseEvent(data)
			}
		}
		return nil
	})
}

// parseEvent reads the value of the event's kv: field 2, and in it field 5.
func (b *watchBatch) parseEvent(data []byte) error {
	return protofields.Each(data, func(num protowire.Number, data []byte, _ uint64) error {
		if num != 2 {
			return nil
		}
		return protofields.Each(data, func(num protowire.Number, data []byte, _ uint64) error {
			if num == 5 && len(data) >= 8 {
				b.seqs = append(b.seqs, binary.BigEndian.Uint64(data))
			}
			return nil
		})
	})
}

// stamped makes a value that begins with a number.
func stamped(value []byte, seq uint64) []byte {
	binary.BigEndian.PutUint64(value, seq)
	return value
}

// watchStream is a stream of the client with its watches.
type watchStream struct {
	grpc.ClientStream
	batch watchBatch
}

// watchRange is what a watch asks for; an empty end is a single key.
type watchRange struct{ key, end []byte }

// openWatches opens a stream and creates the watches on it, one after the
// other, with prev_kv as apiservers ask for it.
func openWatches(ctx context.Context, conn *grpc.ClientConn, from int64, ranges ...watchRange) (*watchStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: true},
		"/etcdserverpb.Watch/Watch", grpc.ForceCodecV2(watchCodec{encoding.GetCodecV2("proto")}))
	if err != nil {
		return nil, err
	}
	w := &watchStream{ClientStream: stream}
	for _, r := range ranges {
		if err := w.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: r.key, RangeEnd: r.end, StartRevision: from, PrevKv: true,
		}}}); err != nil {
			return nil, err
		}
		if err := w.RecvMsg(&w.batch); err != nil || !w.batch.created || w.batch.canceled {
			return nil, fmt.Errorf("create watch: created %v, canceled %v %s: %w", w.batch.created, w.batch.canceled, w.batch.reason, err)
		}
	}
	return w, nil
}

// next reads a batch; it is good until the next call.
func (w *watchStream) next() (*watchBatch, time.Time, error) {
	if err := w.RecvMsg(&w.batch); err != nil {
		return nil, time.Time{}, err
	}
	if w.batch.canceled {
		return nil, time.Time{}, fmt.Errorf("watch cancelled: %s", w.batch.reason)
	}
	return &w.batch, time.Now(), nil
}
