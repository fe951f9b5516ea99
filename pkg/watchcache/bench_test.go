package watchcache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// BenchmarkFanOut is the cost of one event to one watcher: 200 streams with one
// watch of one prefix each, and 5,000 watches of single keys that stay idle.
// Events are appended one by one; ns/delivery has everything but gRPC.
func BenchmarkFanOut(b *testing.B) {
	for _, size := range []int{400, 3000} {
		b.Run(fmt.Sprintf("value=%d", size), func(b *testing.B) { benchFanOut(b, size) })
	}
}

func benchFanOut(b *testing.B, size int) {
	const watchers, idle, batch = 200, 5000, 1
	w := newWorld(b, Options{})
	idler := w.hub.NewStream()
	for i := range idle {
		idler.Create(CreateRequest{Key: fmt.Appendf(nil, "/registry/pods/idle/%d", i)})
		mustNext(b, idler)
	}
	var got sync.WaitGroup
	var done sync.WaitGroup
	for range watchers {
		s := w.hub.NewStream()
		defer s.Close()
		s.Create(CreateRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0"), PrevKV: true})
		mustNext(b, s)
		done.Go(func() {
			for {
				batch, err := s.Next(context.Background())
				if err != nil {
					return
				}
				for range batch.Events {
					got.Done()
				}
			}
		})
	}
	value := strings.Repeat("v", size)
	b.ReportAllocs()
	for b.Loop() {
		got.Add(watchers * batch)
		w.applyQuiet(putReq("/registry/pods/default/a", value))
		got.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/watchers, "ns/delivery")
	w.hub.Close()
	done.Wait()
}

// BenchmarkAppend is what a put and its event cost the apply goroutine, with 5,000
// idle watches of single keys and 100 of other prefixes (watches=0: without).
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{0, 5000} {
		b.Run(fmt.Sprintf("watches=%d", n), func(b *testing.B) { benchAppend(b, n) })
	}
}

func benchAppend(b *testing.B, watches int) {
	w := newWorld(b, Options{})
	s := w.hub.NewStream()
	defer s.Close()
	for i := range watches {
		s.Create(CreateRequest{Key: fmt.Appendf(nil, "/registry/pods/idle/%d", i)})
		mustNext(b, s)
	}
	for i := range watches / 50 {
		s.Create(CreateRequest{Key: fmt.Appendf(nil, "/registry/r%d/", i), RangeEnd: fmt.Appendf(nil, "/registry/r%d0", i)})
		mustNext(b, s)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.applyQuiet(putReq("/registry/pods/default/a", "v"))
	}
}

// applyQuiet is apply without the twin, for benchmarks.
func (w *world) applyQuiet(r *pb.InternalRaftRequest) {
	w.index++
	res := w.state.Apply(mvcc.Entry{Index: w.index, Term: 1, Request: r})
	v := w.state.Publish()
	w.view.Store(v)
	w.hub.Append(v, res.Events)
}
