package etcdapi

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// Field numbers of etcdserverpb.WatchResponse. Events (11) come framed from the hub.
const (
	watchHeader          protowire.Number = 1
	watchID              protowire.Number = 2
	watchCreated         protowire.Number = 3
	watchCanceled        protowire.Number = 4
	watchCompactRevision protowire.Number = 5
	watchCancelReason    protowire.Number = 6
	watchFragment        protowire.Number = 7
)

// watchResponse is an etcdserverpb.WatchResponse about to be encoded: one batch of
// a watch stream, or a part of its events.
type watchResponse struct {
	header   wireHeader
	batch    *watchcache.Batch
	events   [][]byte
	fragment bool // more of the same revision follows
}

// send sends r in messages smaller than bytesMax where whole events allow it. It
// splits where etcd does.
func (r *watchResponse) send(stream grpc.ServerStream, bytesMax int) error {
	if len(r.events) < 2 || r.size() < bytesMax {
		return stream.SendMsg(r.encode())
	}
	rest := r.events
	for len(rest) > 0 {
		r.events, r.fragment = nil, true
		size, n := r.size(), 0
		for n < len(rest) {
			size += len(rest[n])
			if n > 0 && size >= bytesMax {
				break
			}
			n++
		}
		r.events, rest = rest[:n], rest[n:]
		r.fragment = len(rest) > 0
		if err := stream.SendMsg(r.encode()); err != nil {
			return err
		}
	}
	return nil
}

func (r *watchResponse) canceled() bool {
	return r.batch.Kind == watchcache.BatchCancelled || r.batch.Err != nil
}

func (r *watchResponse) size() int {
	return r.headSize() + r.eventsSize()
}

func (r *watchResponse) eventsSize() int {
	n := 0
	for _, e := range r.events {
		n += len(e)
	}
	return n
}

func (r *watchResponse) headSize() int {
	n := sizeBytesField(watchHeader, r.header.size()) +
		sizeUintField(watchID, uint64(r.batch.WatchID)) +
		sizeUintField(watchCompactRevision, uint64(r.batch.CompactRevision))
	for _, set := range [...]bool{r.batch.Kind == watchcache.BatchCreated, r.canceled(), r.fragment} {
		if set {
			n += 2
		}
	}
	if reason := cancelReason(r.batch.Err); reason != "" {
		n += sizeBytesField(watchCancelReason, len(reason))
	}
	return n
}

func (r *watchResponse) appendHead(b []byte) []byte {
	b = protowire.AppendTag(b, watchHeader, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(r.header.size()))
	b = r.header.append(b)
	b = appendUintField(b, watchID, uint64(r.batch.WatchID))
	if r.batch.Kind == watchcache.BatchCreated {
		b = appendUintField(b, watchCreated, 1)
	}
	if r.canceled() {
		b = appendUintField(b, watchCanceled, 1)
	}
	b = appendUintField(b, watchCompactRevision, uint64(r.batch.CompactRevision))
	if reason := cancelReason(r.batch.Err); reason != "" {
		b = protowire.AppendTag(b, watchCancelReason, protowire.BytesType)
		b = protowire.AppendString(b, reason)
	}
	if r.fragment {
		b = appendUintField(b, watchFragment, 1)
	}
	return b
}

// encode makes the wire form: one pooled buffer for a small response; for a large
// one the head, and the events as they are shared.
func (r *watchResponse) encode() *reply {
	head, events := r.headSize(), r.eventsSize()
	pool := mem.DefaultBufferPool()
	if events >= watchShareBytesMin {
		bufs := make(mem.BufferSlice, 0, 1+len(r.events))
		bufs = append(bufs, mem.SliceBuffer(r.appendHead(make([]byte, 0, head))))
		for _, e := range r.events {
			bufs = append(bufs, mem.SliceBuffer(e))
		}
		return &reply{bufs: bufs}
	}
	data := pool.Get(head + events)
	b := r.appendHead((*data)[:0])
	for _, e := range r.events {
		b = append(b, e...)
	}
	return &reply{bufs: mem.BufferSlice{mem.NewBuffer(data, pool)}}
}

// cancelReason is the text of a refusal, as etcd's server words it.
func cancelReason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, mvcc.ErrCompacted):
		return rpctypes.ErrCompacted.Error()
	}
	return err.Error()
}
