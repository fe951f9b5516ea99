package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// snapshots takes one after the other as fast as the link is, with a pause, and one
// after the other that is read slowly.
func snapshots(ctx context.Context, addr string, every time.Duration, via *link, say func(said)) error {
	var wg sync.WaitGroup
	for _, by := range []struct {
		link  *link
		every time.Duration
	}{{via, every}, {newLink(slowBytes), 0}} {
		conn, err := dial(addr, by.link.dialed())
		if err != nil {
			return err
		}
		defer conn.Close()
		wg.Go(func() {
			for ctx.Err() == nil {
				n, err := snapshot(ctx, conn)
				switch {
				case err == nil:
					say(said{Snapshot: n})
				case ctx.Err() == nil:
					say(said{Problem: "snapshot: " + err.Error()})
					pause(ctx, time.Second)
				}
				pause(ctx, by.every)
			}
		})
	}
	wg.Wait()
	return nil
}

// snapshot reads a whole one and compares it with the checksum at its end.
func snapshot(ctx context.Context, conn *grpc.ClientConn) (int64, error) {
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return 0, err
	}
	sum := sha256.New()
	var read int64
	var tail []byte // the last bytes, which may be the checksum
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		read += int64(len(resp.Blob))
		tail = append(tail, resp.Blob...)
		if known := len(tail) - sha256.Size; known > 0 {
			sum.Write(tail[:known])
			tail = append(tail[:0], tail[known:]...)
		}
	}
	if !bytes.Equal(sum.Sum(nil), tail) {
		return 0, fmt.Errorf("the checksum of a snapshot of %d bytes is wrong", read)
	}
	return read, nil
}
