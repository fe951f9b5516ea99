package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProcessServesMoreThanItsMemory serves several times what --memory-limit is, and starts again with it. SHIM_TEST_DATA_BYTES and
// SHIM_TEST_MEMORY_BYTES make it larger; SHIM_TEST_CGROUP is the directory of a cgroup that the process is put into, with a bound of its own.
func TestProcessServesMoreThanItsMemory(t *testing.T) {
	data, limit := envBytes(t, "SHIM_TEST_DATA_BYTES", 160<<20), envBytes(t, "SHIM_TEST_MEMORY_BYTES", 64<<20)
	const size = 8 << 10
	keys := int(data / size)
	dir := filepath.Join(t.TempDir(), "data")
	begin := func() *process {
		began := time.Now()
		p := launch(t, dir, "--memory-limit="+strconv.FormatInt(limit, 10), "--quota-backend-bytes=-1")
		if group := os.Getenv("SHIM_TEST_CGROUP"); group != "" {
			if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), strconv.AppendInt(nil, int64(p.cmd.Process.Pid), 10), 0); err != nil {
				t.Fatal(err)
			}
		}
		p.await()
		t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
		return p
	}
	check := func(when string, p *process) {
		cli := p.dial()
		took := getSome(t, cli, keys, size)
		t.Logf("%s: gets p50 %v p99 %v, longest %v", when, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		for _, l := range []struct {
			how  string
			list func(testing.TB, *clientv3.Client, int, int)
		}{{"by pages", listAll}, {"streamed", streamAll}} {
			began := time.Now()
			l.list(t, cli, keys, size)
			all := time.Since(began)
			t.Logf("%s: a list of all %s took %v, %.0f a second", when, l.how, all.Round(time.Millisecond), float64(keys)/all.Seconds())
		}
		anon := anonBytes(t, p.cmd.Process.Pid)
		t.Logf("%s: %d MiB of data, limit %d MiB, %d MiB of anonymous memory", when, data>>20, limit>>20, anon>>20)
		if anon > limit {
			t.Errorf("%s: %d bytes of memory with a limit of %d", when, anon, limit)
		}
	}
	p := begin()
	began := time.Now()
	fill(t, p.dial(), keys, size)
	t.Logf("written in %v", time.Since(began).Round(time.Millisecond))
	check("written", p)
	p.stop(syscall.SIGTERM)
	p = begin()
	check("started again", p)
	p.stop(syscall.SIGTERM)
}

func envBytes(t testing.TB, name string, otherwise int64) int64 {
	n := otherwise
	if s := os.Getenv(name); s != "" {
		if err := (bytesValue{&n}).Set(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func memoryKey(i int) string { return fmt.Sprintf("/registry/pods/ns-%d/pod-%07d", i%20, i) }

func memoryValue(i, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", i), size/8)
}

func fill(t testing.TB, cli *clientv3.Client, keys, size int) {
	t.Helper()
	const writers = 32
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < keys; i += writers {
				if _, err := cli.Put(context.Background(), memoryKey(i), string(memoryValue(i, size))); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
}

// listAll lists everything by pages, and looks at every value.
func listAll(t testing.TB, cli *clientv3.Client, keys, size int) {
	t.Helper()
	seen, from := 0, "/registry/pods/"
	rev := int64(0)
	for more := true; more; {
		r, err := cli.Get(context.Background(), from, clientv3.WithRange(clientv3.GetPrefixRangeEnd("/registry/pods/")),
			clientv3.WithLimit(500), clientv3.WithRev(rev))
		if err != nil {
			t.Fatal(err)
		}
		wantMemory(t, r.Kvs, size)
		seen, more, rev = seen+len(r.Kvs), r.More, r.Header.Revision
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	if seen != keys {
		t.Fatalf("listed %d keys of %d", seen, keys)
	}
}

func wantMemory(t testing.TB, kvs []*mvccpb.KeyValue, size int) {
	t.Helper()
	for _, kv := range kvs {
		i, err := strconv.Atoi(string(kv.Key[len(kv.Key)-7:]))
		if err != nil || string(kv.Key) != memoryKey(i) || !bytes.Equal(kv.Value, memoryValue(i, size)) {
			t.Fatalf("listed %s with %.20q", kv.Key, kv.Value)
		}
	}
}

// streamAll lists everything by RangeStream, and looks at every value.
func streamAll(t testing.TB, cli *clientv3.Client, keys, size int) {
	t.Helper()
	all, err := pb.NewKVClient(cli.ActiveConnection()).RangeStream(t.Context(),
		&pb.RangeRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte(clientv3.GetPrefixRangeEnd("/registry/pods/"))})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for {
		r, err := all.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kvs := r.GetRangeResponse().GetKvs()
		wantMemory(t, kvs, size)
		seen += len(kvs)
	}
	if seen != keys {
		t.Fatalf("streamed %d keys of %d", seen, keys)
	}
}

// getSome gets keys from all over, one at a time, and answers how long each took, sorted.
func getSome(t testing.TB, cli *clientv3.Client, keys, size int) []time.Duration {
	t.Helper()
	var took []time.Duration
	for n := range 3000 {
		i := n * 7919 % keys
		began := time.Now()
		r, err := cli.Get(context.Background(), memoryKey(i))
		took = append(took, time.Since(began))
		if err != nil || len(r.Kvs) != 1 || !bytes.Equal(r.Kvs[0].Value, memoryValue(i, size)) {
			t.Fatalf("get %s: %v", memoryKey(i), err)
		}
	}
	slices.Sort(took)
	return took
}

// anonBytes is the memory of a process that is not a file's: what the kernel cannot take back.
func anonBytes(t testing.TB, pid int) int64 { return memoryBytes(t, pid, "RssAnon:") }

// memoryBytes is what the kernel says about the memory of a process.
func memoryBytes(t testing.TB, pid int, field string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("the kernel does not say %s", field)
	return 0
}
