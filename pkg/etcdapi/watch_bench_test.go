package etcdapi

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// BenchmarkWatchFanOut is the CPU of server and a client that decodes nothing, per
// event delivered to one of 200 watchers over 4 loopback connections. Events come
// in bursts of 1 and of 20.
func BenchmarkWatchFanOut(b *testing.B) {
	for _, size := range []int{400, 3000} {
		for _, burst := range []int{1, 20} {
			b.Run(fmt.Sprintf("value=%d/burst=%d", size, burst), func(b *testing.B) { benchWatchFanOut(b, size, burst) })
		}
	}
}

// countingCodec counts the bytes of what it is to decode.
type countingCodec struct {
	encoding.CodecV2
	got func(bytes int)
}

func (c countingCodec) Unmarshal(data mem.BufferSlice, _ any) error {
	c.got(data.Len())
	return nil
}

func benchWatchFanOut(b *testing.B, size, burst int) {
	const watchers = 200
	ts := startServer(b, Options{})
	state := mvcc.New(mvcc.Options{})
	view := state.Publish()
	var mu sync.Mutex
	hub := watchcache.New(watchcache.Options{}, watchcache.Env{View: func() *mvcc.View {
		mu.Lock()
		defer mu.Unlock()
		return view
	}})
	ts.Server.hub = hub // events come from here, without a log in front
	var pending sync.WaitGroup
	value := strings.Repeat("v", size)
	codec := countingCodec{newCodec().plain, func(n int) { pending.Add(-(n / (size + 40))) }}
	conns := make([]*grpc.ClientConn, 4)
	for i := range conns {
		conns[i] = ts.conn(b)
	}
	pending.Add(0)
	for i := range watchers {
		st, err := pb.NewWatchClient(conns[i%4]).Watch(within(b), grpc.ForceCodecV2(codec))
		if err != nil {
			b.Fatal(err)
		}
		err = st.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0"),
		}}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				if _, err := st.Recv(); err != nil {
					return
				}
			}
		}()
	}
	index := uint64(0)
	before := cpuTime()
	for b.Loop() {
		pending.Add(watchers * burst)
		for range burst {
			index++
			res := state.Apply(mvcc.Entry{Index: index, Term: 1, Request: &pb.InternalRaftRequest{
				Put: &pb.PutRequest{Key: []byte("/registry/pods/default/a"), Value: []byte(value)},
			}})
			v := state.Publish()
			mu.Lock()
			view = v
			mu.Unlock()
			hub.Append(v, res.Events)
		}
		pending.Wait()
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/float64(watchers*burst), "cpu-ns/delivery")
	hub.Close()
	runtime.KeepAlive(ts)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
