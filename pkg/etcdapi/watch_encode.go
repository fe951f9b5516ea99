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
	events   []*watchcache.Frame
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
			size += rest[n].Len()
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
		n += e.Len()
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

// watchMessage is the wire form of a response with few events: everything that
// sending it needs, but the events themselves, in one allocation.
type watchMessage struct {
	reply reply
	bufs  [watchMessagePieces]mem.Buffer
	boxes [watchMessagePieces]mem.SliceBuffer // where bufs point: a slice in an interface is an allocation of its own
	heads [watchMessageHeadsBytes]byte
}

// encode makes the wire form. A short one is copied into one slice; otherwise it is
// the head, and the events as they are shared with the other watchers; only of
// these the short pieces are copied, to what they follow.
func (r *watchResponse) encode() *reply {
	head := r.headSize()
	if size := head + r.eventsSize(); size < watchShareBytesMin || len(r.events) == 0 {
		b := r.appendHead(make([]byte, 0, size))
		for _, e := range r.events {
			b = e.AppendTo(b)
		}
		return &reply{bufs: mem.BufferSlice{mem.SliceBuffer(b)}}
	}
	n := 1
	for _, e := range r.events {
		n += len(e.Pieces())
	}
	m := new(watchMessage)
	bufs, boxes, heads := m.bufs[:0], m.boxes[:0], r.appendHead(m.heads[:0])
	if n > len(m.bufs) {
		bufs, boxes = make([]mem.Buffer, 0, n), make([]mem.SliceBuffer, 0, n)
	}
	from := 0 // heads from here on are in no box yet
	for _, e := range r.events {
		for _, p := range e.Pieces() {
			if len(p) <= watchHeadBytesMax {
				heads = append(heads, p...)
				continue
			}
			if len(heads) > from {
				boxes = append(boxes, heads[from:])
				from = len(heads)
			}
			boxes = append(boxes, p)
		}
	}
	if len(heads) > from {
		boxes = append(boxes, heads[from:])
	}
	for i := range boxes {
		bufs = append(bufs, &boxes[i])
	}
	m.reply.bufs = bufs
	return &m.reply
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
