package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/measure"
	"github.com/kubeshim/shim/test/soak/ledger"
)

const (
	sleepers = 60 // watches that nobody reads
	// wakers of them are read in the end, the others go away.
	wakers    = 12
	wakingMax = 20 * time.Second
)

// slowWatchers opens watches and does not read them before the end.
func slowWatchers(ctx context.Context, addr string, _ time.Duration, _ *link, say func(said)) error {
	streams, cancel := context.WithCancel(context.Background())
	defer cancel()
	rev, err := current(ctx, addr)
	if err != nil {
		return err
	}
	var asleep []pb.Watch_WatchClient
	var followers []*ledger.Follower
	for i := range sleepers {
		conn, err := dial(addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		prefix := "/registry/" + resources[i%2] + "/"
		f := &ledger.Follower{Name: fmt.Sprintf("sleeper %d", i), Prefix: prefix, From: rev + 1}
		stream, err := openWatch(streams, conn, []byte(prefix), measure.PrefixEnd(prefix), f.From, false)
		if err != nil {
			return err
		}
		asleep, followers = append(asleep, stream), append(followers, f)
	}
	<-ctx.Done()
	if rev, err = current(streams, addr); err != nil {
		return err
	}
	time.AfterFunc(wakingMax, cancel)
	var wg sync.WaitGroup
	for i := range wakers {
		wg.Go(func() {
			wake(streams, asleep[i], followers[i], rev)
			say(said{Watch: followers[i]})
		})
	}
	wg.Wait()
	return nil
}

// current is the newest revision.
func current(ctx context.Context, addr string) (int64, error) {
	conn, err := dial(addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	resp, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("/registry/pods"), Limit: 1})
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// wake reads until everything up to a revision has come, or the word that it
// was compacted.
func wake(ctx context.Context, stream pb.Watch_WatchClient, f *ledger.Follower, upTo int64) {
	go ask(ctx, stream)
	for {
		r, err := stream.Recv()
		switch {
		case err != nil:
			f.Problems = append(f.Problems, fmt.Sprintf("awake, it ended at revision %d of %d: %v", f.Last, upTo, err))
			return
		case r.Canceled:
			if f.Compacted = r.CompactRevision; f.Compacted == 0 {
				f.Problems = append(f.Problems, "was cancelled: "+r.CancelReason)
			}
			return
		case len(r.Events) > 0:
			f.Take(r.Events)
		default:
			f.Promised(r.Header.Revision)
			if r.Header.Revision >= upTo {
				return
			}
		}
	}
}
