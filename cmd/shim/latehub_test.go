package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// TestLateHubLosesNothing makes the hub while revisions are being published, and
// reads all of them from it, once each.
func TestLateHubLosesNothing(t *testing.T) {
	const writes = 2000
	for range 20 {
		state := mvcc.New(mvcc.Options{})
		var view atomic.Pointer[mvcc.View]
		view.Store(state.Publish())
		var late lateHub
		begun, done := make(chan struct{}), make(chan struct{})
		go func() { // the apply goroutine
			defer close(done)
			for i := range uint64(writes) {
				req := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(fmt.Sprint("k", i))}}
				res := state.Apply(mvcc.Entry{Index: i + 1, Term: 1, Request: req})
				v := state.Publish()
				view.Store(v)
				late.append(v, res.Events)
				if i == 10 {
					close(begun)
				}
			}
		}()
		<-begun
		hub := late.open(watchcache.Options{}, watchcache.Env{View: view.Load})
		stream := hub.NewStream()
		stream.Create(watchcache.CreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: 2})
		next := mvcc.Revision(2)
		for next < writes+2 {
			b, err := stream.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, frame := range b.Events { // fields of a WatchResponse
				var resp pb.WatchResponse
				if err := proto.Unmarshal(frame.AppendTo(nil), &resp); err != nil {
					t.Fatal(err)
				}
				for _, e := range resp.Events {
					if mod := mvcc.Revision(e.Kv.ModRevision); mod != next {
						t.Fatalf("revision %d came, %d was due", mod, next)
					}
					next++
				}
			}
		}
		<-done
		stream.Close()
	}
}
