package main

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/measure"
)

const (
	stormLists    = 24      // of all pods at once, half of them streamed
	slowLists     = 8       // all the time, each over a link of its own
	slowBytes     = 2 << 20 // a second, of such a link
	listMemoryMax = 2 << 30 // of the child
)

// listStorms is what happens when all apiservers start anew, and some of them
// are far away.
func listStorms(ctx context.Context, addr string, every time.Duration, via *link, say func(said)) error {
	debug.SetMemoryLimit(listMemoryMax)
	var wg sync.WaitGroup
	defer wg.Wait()
	for range slowLists {
		conn, err := dial(addr, newLink(slowBytes).dialed())
		if err != nil {
			return err
		}
		defer conn.Close()
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				list(ctx, conn, i%2 == 0, say)
			}
		})
	}
	var conns []*grpc.ClientConn
	for range stormLists {
		conn, err := dial(addr, via.dialed())
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	for ctx.Err() == nil {
		var storm sync.WaitGroup
		for i, conn := range conns {
			storm.Go(func() { list(ctx, conn, i%2 == 0, say) })
		}
		storm.Wait()
		pause(ctx, every)
	}
	return nil
}

// list reads all pods and says what it got; it may be cut off by the end of ctx.
func list(ctx context.Context, conn *grpc.ClientConn, whole bool, say func(said)) {
	const prefix = "/registry/" + pods + "/"
	l := &saidList{Prefix: prefix}
	req := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: measure.PrefixEnd(prefix)}
	var err error
	if whole {
		err = l.whole(ctx, conn, req)
	} else {
		err = l.streamed(ctx, conn, req)
	}
	switch {
	case err == nil:
		say(said{List: l})
	case ctx.Err() == nil:
		say(said{Problem: "list: " + err.Error()})
		pause(ctx, time.Second)
	}
}

func (l *saidList) whole(ctx context.Context, conn *grpc.ClientConn, req *pb.RangeRequest) error {
	return conn.Invoke(ctx, pb.KV_Range_FullMethodName, req, &listPart{saidList: l}, grpc.ForceCodecV2(newListCodec()))
}

func (l *saidList) streamed(ctx context.Context, conn *grpc.ClientConn, req *pb.RangeRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, pb.KV_RangeStream_FullMethodName, grpc.ForceCodecV2(newListCodec()))
	if err == nil {
		err = stream.SendMsg(req)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		err = stream.RecvMsg(&listPart{saidList: l, streamed: true})
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}
