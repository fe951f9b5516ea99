package main

import (
	"context"
	"net"
	"runtime"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// floorQueue bounds the events that wait for one stream; a put waits when it is
// full.
const floorQueue = 1024

// floorWriteBuffer is the size of grpc-go's write buffer.
const floorWriteBuffer = 32 * 1024

// floorWatcher is one watch on a stream.
type floorWatcher struct {
	stream   *floorStream
	id       int64
	key, end string
}

type floorStream struct {
	ctx    context.Context
	events chan floorEvent
	floor  *floor
}

// floorEvent is a message for one stream. Those of events to one watch can be
// joined: encoded messages one behind the other are the message of both.
type floorEvent struct {
	b       canned
	id      int64
	created bool
}

// floorBatchMax bounds the messages that are joined.
const floorBatchMax = 64

// batch is e and what waits behind it for the same watch; held is a message that
// was taken from the queue and belongs to another.
func (s *floorStream) batch(e floorEvent) (all joined, held *floorEvent) {
	all = append(all, e.b)
	for !e.created && len(all) < floorBatchMax {
		select {
		case next := <-s.events:
			s.floor.queued.Add(-1)
			if next.created || next.id != e.id {
				return all, &next
			}
			all = append(all, next.b)
		default:
			return all, nil
		}
	}
	return all, nil
}

// doWatch registers the watches that a stream asks for, and sends to it.
func (f *floor) doWatch(_ any, stream grpc.ServerStream) error {
	s := &floorStream{ctx: stream.Context(), events: make(chan floorEvent, floorQueue), floor: f}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		f.register(s, stream)
	}()
	defer func() { <-gone }()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case e := <-s.events:
			f.queued.Add(-1)
			for next := &e; next != nil; {
				var all joined
				all, next = s.batch(*next)
				if err := stream.SendMsg(all); err != nil {
					return err
				}
			}
		}
	}
}

// register runs until the stream ends, and takes its watches away then.
func (f *floor) register(s *floorStream, stream grpc.ServerStream) {
	var own []floorWatcher
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range own {
			delete(f.ranges, w)
			delete(f.watchers[w.key], w)
		}
	}()
	for {
		req := new(pb.WatchRequest)
		if stream.RecvMsg(req) != nil {
			return
		}
		create := req.GetCreateRequest()
		if create == nil {
			continue
		}
		w := floorWatcher{stream: s, id: int64(len(own)), key: string(create.Key), end: string(create.RangeEnd)}
		own = append(own, w)
		f.mu.Lock()
		switch {
		case w.end != "":
			f.ranges[w] = true
		case f.watchers[w.key] == nil:
			f.watchers[w.key] = map[floorWatcher]bool{w: true}
		default:
			f.watchers[w.key][w] = true
		}
		f.mu.Unlock()
		w.send(floorEvent{mustMarshal(&pb.WatchResponse{Header: header(f.rev.Load()), WatchId: w.id, Created: true}), w.id, true})
	}
}

func (w floorWatcher) send(e floorEvent) {
	queued := &w.stream.floor.queued
	queued.Add(1)
	select {
	case w.stream.events <- e:
	case <-w.stream.ctx.Done():
		queued.Add(-1)
	}
}

// fanOut sends a put to its watchers, encoded once for those with the same ID.
func (f *floor) fanOut(put *pb.PutRequest, rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers)+len(f.ranges) == 0 {
		return
	}
	key := string(put.GetKey())
	encoded := map[int64]canned{}
	send := func(w floorWatcher) {
		b, ok := encoded[w.id]
		if !ok {
			kv := &mvccpb.KeyValue{Key: put.GetKey(), Value: put.GetValue(), ModRevision: rev, CreateRevision: 1, Version: 2}
			b = mustMarshal(&pb.WatchResponse{Header: header(rev), WatchId: w.id, Events: []*mvccpb.Event{{Kv: kv, PrevKv: kv}}})
			encoded[w.id] = b
		}
		w.send(floorEvent{b: b, id: w.id})
	}
	for w := range f.watchers[key] {
		send(w)
	}
	for w := range f.ranges {
		if w.key <= key && key < w.end {
			send(w)
		}
	}
}

// floorListener's connections let streams with a message in their queue run
// before a write of less than a full buffer, as shim's do: many messages then
// share a system call.
type floorListener struct {
	net.Listener
	floor *floor
}

func (l floorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return floorConn{c.(*net.TCPConn), l.floor}, nil
}

type floorConn struct {
	*net.TCPConn
	floor *floor
}

func (c floorConn) Write(b []byte) (int, error) {
	if len(b) < floorWriteBuffer && c.floor.queued.Load() > 0 {
		runtime.Gosched()
	}
	return c.TCPConn.Write(b)
}
