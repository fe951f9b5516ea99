package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkProcessBesideDefrag fills shim with SHIM_TEST_DATA_BYTES of objects of SHIM_TEST_VALUE_BYTES, 600 MB of 12 kB if these are not set, under SHIM_TEST_MEMORY_BYTES
// as its memory limit, and deletes every fourth. Then a client writes a heartbeat every 2 ms while nothing else is done (quiet), while a
// compaction is waited for whose dead rows are removed (removal), beside the copy of a defragmentation (copy), when the files are switched
// (switch), and while the old file is given back (after). Each stage tells its figures when it is over: those of the heartbeats, of a
// probe of the disk, which writes and syncs a block of its own beside it, and what the server counted of its own syncs and commits; and
// the longest heartbeats, each with the longest sync of the probe that it met: where both are long, it was the disk.
func BenchmarkProcessBesideDefrag(b *testing.B) {
	size := int(envBytes(b, "SHIM_TEST_VALUE_BYTES", 12_000))
	data, limit := envBytes(b, "SHIM_TEST_DATA_BYTES", 600e6), envBytes(b, "SHIM_TEST_MEMORY_BYTES", 1<<30)
	keys := int(data) / size
	dir := b.TempDir()
	p := start(b, filepath.Join(dir, "data"), "--memory-limit="+strconv.FormatInt(limit, 10), "--quota-backend-bytes=-1", "--auto-defrag=false")
	ctx, cli, beating := b.Context(), p.dial(), p.dial()
	s := &stages{b: b, p: p, began: time.Now()}
	fill(b, cli, keys, size)
	s.say("filled with %d MB", data/1e6)
	rev := deleteFourth(b, cli, keys)
	s.say("deleted every fourth of %d objects", keys)

	s.beats = beginTimings(2*time.Millisecond, func(i int) error {
		_, err := beating.Put(ctx, fmt.Sprintf("/registry/leases/kube-node-lease/node-%04d", i%5000), strings.Repeat("v", 400))
		return err
	})
	s.probe = beginTimings(25*time.Millisecond, syncsOf(b, filepath.Join(dir, "probe")))
	time.Sleep(3 * time.Second)
	s.run("quiet", func() { time.Sleep(10 * time.Second) })
	s.run("removal", func() {
		if _, err := cli.Compact(ctx, rev, clientv3.WithCompactPhysical()); err != nil {
			b.Fatal(err)
		}
	})
	began := time.Now()
	if _, err := cli.Defragment(ctx, p.client); err != nil {
		b.Fatal(err)
	}
	switched := time.Now()
	b.ReportMetric(switched.Sub(began).Seconds(), "s")
	time.Sleep(2 * time.Second)
	s.tell("copy", began, switched.Add(-300*time.Millisecond))
	s.tell("switch", switched.Add(-300*time.Millisecond), time.Now())
	s.run("after", func() { time.Sleep(20 * time.Second) })
	for _, t := range []*timings{s.beats, s.probe} {
		if err := t.end(); err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(memoryBytes(b, p.cmd.Process.Pid, "VmHWM:"))/1e6, "MB-rss-peak")
	p.stop(syscall.SIGTERM)
}

// deleteFourth deletes every fourth object, and answers the revision.
func deleteFourth(b *testing.B, cli *clientv3.Client, keys int) (rev int64) {
	for i := 0; i < keys; {
		var ops []clientv3.Op
		for ; i < keys && len(ops) < 100; i += 4 {
			ops = append(ops, clientv3.OpDelete(memoryKey(i)))
		}
		r, err := cli.Txn(b.Context()).Then(ops...).Commit()
		if err != nil {
			b.Fatal(err)
		}
		rev = r.Header.Revision
	}
	return rev
}

// syncsOf writes blocks into a file that was written before, and syncs each, as the server's log does.
func syncsOf(b *testing.B, name string) func(i int) error {
	const fileBytes = 4 << 20
	f, err := vfs.OS.Create(name)
	if err == nil {
		_, err = f.WriteAt(make([]byte, fileBytes), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		f, err = vfs.OS.OpenDirect(name)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	block := vfs.AlignedBuffer(vfs.DirectBytes)[:vfs.DirectBytes]
	return func(i int) error {
		if _, err := f.WriteAt(block, int64(i)*vfs.DirectBytes%fileBytes); err != nil {
			return err
		}
		return f.Sync()
	}
}

// timings are how long something takes that is done again and again.
type timings struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	all  []timing
	open map[int]time.Time // those that have begun and not ended
	err  error             // the first one
}

type timing struct {
	at   time.Time
	took time.Duration
}

// beginTimings does it every so often, whether those before have ended or not.
func beginTimings(every time.Duration, do func(i int) error) *timings {
	ctx, stop := context.WithCancel(context.Background())
	t := &timings{stop: stop, open: make(map[int]time.Time)}
	t.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				t.running.Go(func() { t.once(i, do) })
			}
		}
	})
	return t
}

func (t *timings) once(i int, do func(i int) error) {
	began := time.Now()
	t.mu.Lock()
	t.open[i] = began
	t.mu.Unlock()
	err := do(i)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, i)
	t.all = append(t.all, timing{began, time.Since(began)})
	if t.err == nil {
		t.err = err
	}
}

func (t *timings) end() error {
	t.stop()
	t.running.Wait()
	return t.err
}

// between are those that began in [from, to), the longest last, once all of them have ended.
func (t *timings) between(from, to time.Time) (found []timing) {
	for t.late(to) {
		time.Sleep(time.Millisecond)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.all {
		if !x.at.Before(from) && x.at.Before(to) {
			found = append(found, x)
		}
	}
	slices.SortFunc(found, func(a, b timing) int { return int(a.took - b.took) })
	return found
}

// late tells whether one that began before has not ended.
func (t *timings) late(before time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.open {
		if at.Before(before) {
			return true
		}
	}
	return false
}

// longest is the longest that met another one.
func longest(all []timing, met timing) (most time.Duration) {
	for _, x := range all {
		if x.at.Before(met.at.Add(met.took)) && met.at.Before(x.at.Add(x.took)) {
			most = max(most, x.took)
		}
	}
	return most
}

// stages tells of each what it was like.
type stages struct {
	b            *testing.B
	p            *process
	began        time.Time
	beats, probe *timings
	syncs        [3]histogram // writes and syncs of the log, and commits of the database, so far
}

func (s *stages) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// run is one stage.
func (s *stages) run(name string, do func()) {
	s.syncs = s.counted()
	began := time.Now()
	do()
	s.tell(name, began, time.Now())
}

// tell tells of a stage that is over.
func (s *stages) tell(name string, from, to time.Time) {
	ms := func(d time.Duration) string { return strconv.FormatFloat(float64(d.Microseconds())/1e3, 'f', 2, 64) }
	say := func(what string, all []timing) {
		n := len(all)
		if n == 0 {
			return
		}
		s.say("%-8s %-10s %6d in %5.1f s: p50 %s p90 %s p99 %s p99.9 %s longest %s ms", name, what, n, to.Sub(from).Seconds(),
			ms(all[n/2].took), ms(all[n*9/10].took), ms(all[n*99/100].took), ms(all[n*999/1000].took), ms(all[n-1].took))
	}
	beats, probe := s.beats.between(from, to), s.probe.between(from.Add(-time.Second), to.Add(time.Second))
	say("heartbeats", beats)
	say("probe", slices.DeleteFunc(slices.Clone(probe), func(x timing) bool { return x.at.Before(from) || !x.at.Before(to) }))
	for _, x := range beats[max(0, len(beats)-5):] {
		s.say("%-8s   %s ms at %.3f s of it; the probe's longest sync meanwhile %s ms", name, ms(x.took), x.at.Sub(from).Seconds(), ms(longest(probe, x)))
	}
	now := s.counted()
	s.say("%-8s server: log writes %s; syncs %s; commits %s; file %d MB", name, now[0].since(s.syncs[0]), now[1].since(s.syncs[1]), now[2].since(s.syncs[2]), fileBytes(s.b, filepath.Join(s.dir(), "snap", "db"))/1e6)
	s.syncs = now
	if n := len(beats); n > 0 {
		s.b.ReportMetric(float64(beats[n*99/100].took.Microseconds())/1e3, name+"-p99")
		s.b.ReportMetric(float64(beats[n-1].took.Microseconds())/1e3, name+"-max")
	}
}

func (s *stages) dir() string {
	for _, arg := range s.p.cmd.Args {
		if dir, ok := strings.CutPrefix(arg, "--data-dir="); ok {
			return filepath.Join(dir, "member")
		}
	}
	return ""
}

// histogram is one of the server's: how many took so long, in seconds, or less, by bound.
type histogram map[string]int

func (s *stages) counted() (h [3]histogram) {
	h = [3]histogram{{}, {}, {}}
	text := bufio.NewScanner(strings.NewReader(s.p.get(s.p.metrics, "/metrics")))
	for text.Scan() {
		for i, name := range [...]string{"etcd_disk_wal_write_duration_seconds_bucket", "etcd_disk_wal_fsync_duration_seconds_bucket",
			"etcd_disk_backend_commit_duration_seconds_bucket"} {
			if rest, ok := strings.CutPrefix(text.Text(), name+`{le="`); ok {
				bound, count, _ := strings.Cut(rest, `"} `)
				h[i][bound], _ = strconv.Atoi(count)
			}
		}
	}
	return h
}

// since tells how many there were, and how many took longer than some bounds.
func (h histogram) since(before histogram) string {
	all := h["+Inf"] - before["+Inf"]
	text := strconv.Itoa(all)
	for _, bound := range []string{"0.004", "0.008", "0.016", "0.032"} {
		text += fmt.Sprintf(", %d > %s s", all-(h[bound]-before[bound]), bound)
	}
	return text
}
