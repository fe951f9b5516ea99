package main

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// floorQueue bounds the events that wait for one stream; a put waits when it is
// full.
const floorQueue = 1024

// floorWatcher is one watch on a stream.
type floorWatcher struct {
	stream   *floorStream
	id       int64
	key, end string
}

type floorStream struct {
	ctx    context.Context
	events chan canned
}

// doWatch registers the watches that a stream asks for, and sends to it.
func (f *floor) doWatch(_ any, stream grpc.ServerStream) error {
	s := &floorStream{ctx: stream.Context(), events: make(chan canned, floorQueue)}
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
		case b := <-s.events:
			if err := stream.SendMsg(b); err != nil {
				return err
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
		w.send(mustMarshal(&pb.WatchResponse{Header: header(f.rev.Load()), WatchId: w.id, Created: true}))
	}
}

func (w floorWatcher) send(b canned) {
	select {
	case w.stream.events <- b:
	case <-w.stream.ctx.Done():
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
		w.send(b)
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
