package raftstore

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkBesideCheckpoints updates 20,000 objects of 3,000 bytes, 64 at a time, while heartbeats come one by one, and the log grows so
// that checkpoints are due by its growth, in parts of some size. The figures are those of the heartbeats (beat-) and of the updates, in ms.
func BenchmarkBesideCheckpoints(b *testing.B) {
	const whole = 1 << 20 // MiB: one transaction
	for _, size := range []struct{ burst, part int64 }{{64, whole}, {16, whole}, {16, 4}, {16, 1}} {
		b.Run(fmt.Sprintf("burst=%dM/part=%dM", size.burst, size.part), func(b *testing.B) {
			h := newHarness(b)
			h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
			h.adjust = func(c *Config) {
				c.WALSegmentBytes, c.Now, c.Ticks = 0, time.Now, nil
				c.Checkpoints = compact.CheckpointPolicy{BurstBytes: size.burst << 20, PartBytes: size.part << 20}
			}
			s := h.open()
			defer closeStore(b, s)
			var next atomic.Int64
			took := make([][]time.Duration, 65)
			value := string(make([]byte, 3000))
			var writers, beats sync.WaitGroup
			done := make(chan struct{})
			start := cpuUsed()
			b.ResetTimer()
			for w := range 64 {
				writers.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						at := time.Now()
						put(b, s, fmt.Sprintf("/registry/pods/default/pod-%06d", i*7919%20_000), value)
						took[w] = append(took[w], time.Since(at))
					}
				})
			}
			beats.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-done:
						return
					case at := <-tick.C:
						put(b, s, fmt.Sprintf("/registry/leases/kube-node-lease/node-%d", i%100), value[:400])
						took[64] = append(took[64], time.Since(at))
					}
				}
			})
			writers.Wait()
			close(done)
			beats.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuUsed()-start).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(len(h.reasons())), "checkpoints")
			report := func(prefix string, all []time.Duration) {
				if len(all) == 0 {
					return
				}
				slices.Sort(all)
				for name, i := range map[string]int{"p50": len(all) / 2, "p99": len(all) * 99 / 100, "max": len(all) - 1} {
					b.ReportMetric(float64(all[i].Microseconds())/1e3, prefix+name)
				}
			}
			report("", slices.Concat(took[:64]...))
			report("beat-", took[64])
		})
	}
}

// cpuUsed is what this process has used.
func cpuUsed() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
