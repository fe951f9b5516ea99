package backend

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// benchMachine is a machine with n objects of 3,000 bytes in its file.
func benchMachine(b *testing.B, n int, o Options) *machine {
	m := &machine{t: b, state: mvcc.New(mvcc.Options{})}
	db, err := Open(filepath.Join(b.TempDir(), "snap", "db"), o)
	if err != nil {
		b.Fatal(err)
	}
	m.db = db
	b.Cleanup(func() { m.db.Close() })
	for i := range n {
		m.put(i)
		if i%20_000 == 19_999 {
			m.checkpoint()
		}
	}
	m.checkpoint()
	return m
}

func (m *machine) put(i int) {
	m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/pods/default/pod-%06d", i), Value: make([]byte, 3000)}})
}

func (m *machine) beat(i int) {
	m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/leases/kube-node-lease/node-%d", i), Value: make([]byte, 400)}})
}

// compact makes all dead that is superseded.
func (m *machine) compact() {
	m.apply(&pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(m.state.Revision())}})
	for !m.state.CompactStep(1 << 20) {
	}
}

// BenchmarkWrite is a checkpoint: of 20,000 new rows of 3,000 bytes; of as many that take the place of random dead ones among 100,000;
// of 100 heartbeats of 400 bytes that take the place of those before; after the compaction of 80,000 heartbeats that are in the file. MB/op is what was written to the disk, by the process' count.
func BenchmarkWrite(b *testing.B) {
	run := func(name string, objects int, change func(m *machine, i int)) {
		for _, page := range []int{4, 8, 16, 32, 64} {
			b.Run(fmt.Sprintf("%s/page=%dk", name, page), func(b *testing.B) {
				m := benchMachine(b, objects, Options{PageBytes: page << 10})
				b.ReportAllocs()
				written, calls := processWrites()
				b.ResetTimer()
				var used time.Duration
				for i := range b.N {
					b.StopTimer()
					change(m, i)
					runtime.GC()
					start := cpu()
					b.StartTimer()
					m.checkpoint()
					b.StopTimer()
					used += cpu() - start
				}
				now, nowCalls := processWrites()
				b.ReportMetric(float64(now-written)/1e6/float64(b.N), "MB/op")
				b.ReportMetric(float64(used.Microseconds())/1e3/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(nowCalls-calls)/float64(b.N), "writes/op")
				b.ReportMetric(float64(m.db.Size())/1e6, "file-MB")
			})
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	run("append", 0, func(m *machine, i int) {
		for k := range 20_000 {
			m.put(i*20_000 + k)
		}
	})
	run("update", 100_000, func(m *machine, _ int) {
		for range 20_000 {
			m.put(rng.IntN(100_000))
		}
		m.compact()
	})
	run("compaction", 0, func(m *machine, _ int) {
		for i := range 80_000 {
			m.beat(i % 5000)
		}
		m.checkpoint()
		m.compact()
	})
	run("heartbeats", 20_000, func(m *machine, _ int) {
		for i := range 100 {
			m.beat(i)
		}
		m.compact()
	})
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processWrites is how much this process wrote, and in how many calls.
func processWrites() (bytes, calls int64) {
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, 0
	}
	var skip int64
	fmt.Sscanf(string(io), "rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d\nread_bytes: %d\nwrite_bytes: %d", &skip, &skip, &skip, &calls, &skip, &bytes)
	return bytes, calls
}
