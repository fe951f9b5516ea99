package robustness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/robustness/history"
)

const (
	slowWatchers   = 20
	slowValueBytes = 100 << 10
	slowPuts       = 500 // per half
	slowWriters    = 8
	slowKeys       = 16
	// slowMemoryMax bounds what the process takes: the 50 MB of versions that are not compacted and the event window of 64 MiB, twice
	// for the garbage collector, and the program. What 20 watchers do not read would be 2 GB.
	slowMemoryMax = 600 << 20
)

// peakMemory is the most that the process ever had in memory, in bytes.
func (s *server) peakMemory() int64 {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var kb int64
		if n, _ := fmt.Sscanf(string(line), "VmHWM: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	s.t.Fatal("no VmHWM in /proc")
	return 0
}

// bigPuts has several clients write, and all of it succeeds.
func bigPuts(t *testing.T, s *server, after func(done int)) {
	t.Helper()
	value := bytes.Repeat([]byte("v"), slowValueBytes)
	var writers sync.WaitGroup
	for w := range slowWriters {
		kv := pb.NewKVClient(s.dial())
		writers.Go(func() {
			for i := w; i < slowPuts; i += slowWriters {
				ctx, cancel := patiently()
				_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "big/%d", i%slowKeys), Value: value})
				cancel()
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				after(i)
			}
		})
	}
	writers.Wait()
}

// slowWatch is a watch that is not read.
func slowWatch(t *testing.T, ctx context.Context, s *server, from int64) pb.Watch_WatchClient {
	t.Helper()
	stream, err := pb.NewWatchClient(s.dial()).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(history.WatchSpec{Key: "big/", End: "big0", Prev: true}.Request(from)); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || !r.Created {
		t.Fatalf("created: %v, %v", r, err)
	}
	return stream
}

// drain reads until the revision is there, or the watch ends since that was compacted. It says up to where events came.
func drain(t *testing.T, stream pb.Watch_WatchClient, from, to int64) (last, compacted int64) {
	t.Helper()
	last = from - 1
	for last < to {
		r, err := stream.Recv()
		if err != nil {
			t.Errorf("watch ended: %v", err)
			return last, 0
		}
		if r.Canceled {
			return last, r.CompactRevision
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision != last+1 || len(e.Kv.Value) != slowValueBytes {
				t.Errorf("event of revision %d with %d bytes after revision %d", e.Kv.ModRevision, len(e.Kv.Value), last)
			}
			last = e.Kv.ModRevision
		}
	}
	return last, 0
}

// TestSlowWatchers: watchers that do not read while 100 MB of events pass cost neither writes nor memory, and get each event once, or a
// clear word that what they lack was compacted.
func TestSlowWatchers(t *testing.T) {
	t.Parallel()
	s := startServer(t, filepath.Join(t.TempDir(), "data"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b := newBookkeeper(t, s.dial())
	first := b.revision() + 1
	streams := make([]pb.Watch_WatchClient, slowWatchers)
	for i := range streams {
		streams[i] = slowWatch(t, ctx, s, first)
	}
	bigPuts(t, s, func(int) {})
	half := b.revision()
	for _, stream := range streams[:slowWatchers/2] {
		if last, compacted := drain(t, stream, first, half); last != half {
			t.Errorf("events up to %d of %d, compacted %d", last, half, compacted)
		}
	}
	kv := pb.NewKVClient(s.dial())
	bigPuts(t, s, func(done int) {
		if done%100 == 99 {
			c, cancel := patiently()
			defer cancel()
			if _, err := kv.Compact(c, &pb.CompactionRequest{Revision: half + int64(done) - 50}); err != nil {
				t.Logf("compact: %v", err) // another writer was faster
			}
		}
	})
	end := b.revision()
	cancelled := 0
	for i, stream := range streams {
		from := first
		if i < slowWatchers/2 {
			from = half + 1
		}
		last, compacted := drain(t, stream, from, end)
		if last == end {
			continue
		}
		cancelled++
		if compacted <= last {
			t.Errorf("watch %d ends after revision %d with compact revision %d, of %d", i, last, compacted, end)
		}
	}
	peak := s.peakMemory()
	t.Logf("%d watches got everything, %d were told of a compaction; at most %d MB in memory", slowWatchers-cancelled, cancelled, peak>>20)
	if peak > slowMemoryMax {
		t.Errorf("%d bytes in memory, at most %d are expected", peak, slowMemoryMax)
	}
}
