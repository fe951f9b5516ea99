//go:build robustness

package robustness

import (
	"fmt"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/measure"
)

// heapObtained is what the heap has had from the kernel, at any time: it never falls.
const heapObtained = "go_memstats_heap_sys_bytes"

// TestClusterMemory: three members with little memory take writes of a megabyte by two of them, several times what they may use, while the
// third is cut off. The heap of none of them ever grows far beyond the limit, and the third catches up.
func TestClusterMemory(t *testing.T) {
	t.Parallel()
	const (
		limit           = 44 << 20
		clients, writes = 8, 30
		valueBytes      = 1 << 20
		most            = 3 * limit // with garbage, and what the clients' calls hold; twice as much comes by
	)
	c := newCluster(t, 3, "--profile=edge", fmt.Sprint("--memory-limit=", limit))
	cut := c.others(c.leader())[0]
	took := c.others(cut)
	c.cutOff(cut)
	ctx, cancel := patiently()
	defer cancel()
	var calls sync.WaitGroup
	for client := range clients {
		kv := pb.NewKVClient(took[client%len(took)].conn)
		calls.Go(func() {
			for i := range writes {
				put := &pb.PutRequest{Key: fmt.Append(nil, "key ", client), Value: measure.Payload(valueBytes, uint64(client*writes+i))}
				for _, err := kv.Put(ctx, put, grpc.WaitForReady(true)); err != nil; _, err = kv.Put(ctx, put, grpc.WaitForReady(true)) {
					if ctx.Err() != nil {
						t.Errorf("write %d of client %d: %v", i, client, err)
						return
					}
				}
			}
		})
	}
	calls.Wait()
	if t.Failed() {
		return
	}
	c.heal()
	awaitSlowly(t, "a snapshot", func() bool { return cut.metric(snapshotsReceived) > 0 })
	b := newBookkeeper(t, c.leader().conn)
	b.surely("last", "x")
	c.agree(b.revision())
	for _, m := range c.members {
		heap := m.metric(heapObtained)
		t.Logf("%s: the heap had %.1f MiB at most", m.name, heap/(1<<20))
		if heap == 0 || heap > most {
			t.Errorf("%s: the heap had %.0f bytes, want %d at most", m.name, heap, most)
		}
	}
}
