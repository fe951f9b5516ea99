package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProcessDefragKilled: a member that is killed in the middle of a
// defragmentation comes back with all that was acknowledged, and nothing of the
// copy; one that is not killed has a smaller file.
func TestProcessDefragKilled(t *testing.T) {
	const keys, valueBytes = 3000, 10_000
	dir := filepath.Join(t.TempDir(), "data")
	db := filepath.Join(dir, "member", "snap", "db")
	ctx, cancel := context.WithTimeout(t.Context(), 2*startTimeout)
	defer cancel()
	p := start(t, dir)
	c := p.dial()
	value := bytes.Repeat([]byte("v"), valueBytes)
	for i := range keys {
		if _, err := c.Put(ctx, fmt.Sprintf("k/%06d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	p.stop(syscall.SIGTERM) // all of it goes to the database
	_ = c.Close()
	p = start(t, dir)
	c = p.dial()
	r, err := c.Delete(ctx, "k/001", clientv3.WithRange("k/002"))
	if err != nil || r.Deleted != 1000 {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for _, copied := range []int64{1, 4 << 20, 12 << 20} {
		acknowledged = killBesideDefrag(ctx, p, c, db+".tmp", copied, acknowledged)
		_ = c.Close()
		p = start(t, dir)
		c = p.dial()
		if _, err := os.Stat(db + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the copy is still there: %v", err)
		}
		for prefix, want := range map[string]int{"k/": keys - 1000, "n/": acknowledged} {
			got, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			late := err == nil && prefix == "n/" && int(got.Count) == want+1 // written, and not answered any more
			if err != nil || int(got.Count) != want && !late {
				t.Fatalf("killed after %d bytes: %d keys %s, want %d (%v)", copied, got.Count, prefix, want, err)
			}
			if late {
				acknowledged++
			}
		}
	}
	before := fileBytes(t, db)
	if _, err := c.Defragment(ctx, p.client); err != nil {
		t.Fatal(err)
	}
	if after := fileBytes(t, db); after > before*3/4 {
		t.Errorf("%d bytes became %d", before, after)
	}
	p.awaitLog("defragmented the database on request")
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got, err := start(t, dir).dial().Get(ctx, "k/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != keys-1000 {
		t.Fatalf("%d keys, want %d (%v)", len(got.Kvs), keys-1000, err)
	}
	for _, kv := range got.Kvs {
		if !bytes.Equal(kv.Value, value) {
			t.Errorf("%s has another value", kv.Key)
		}
	}
}

// killBesideDefrag writes keys from n/FIRST on beside defragmentations, kills the
// member as soon as the copy of one has so many bytes, and answers how many keys
// were acknowledged.
func killBesideDefrag(ctx context.Context, p *process, c *clientv3.Client, name string, bytes int64, first int) int {
	p.t.Helper()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { // its own end is the member's
		for _, err := c.Defragment(ctx, p.client); err == nil; _, err = c.Defragment(ctx, p.client) {
		}
	})
	beside.Go(func() {
		for ctx.Err() == nil {
			if info, err := os.Stat(name); err == nil && info.Size() >= bytes {
				break
			}
		}
		_ = p.cmd.Process.Kill()
	})
	for {
		if _, err := c.Put(ctx, fmt.Sprintf("n/%06d", first), "v"); err != nil {
			break
		}
		first++
	}
	if ctx.Err() != nil {
		p.t.Fatalf("no copy of %d bytes was seen", bytes)
	}
	p.wait()
	return first
}

func fileBytes(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestProcessDefragAtStart: a member that was told a threshold defragments
// behind its start.
func TestProcessDefragAtStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir, "--auto-defrag=false")
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c := p.dial()
	for i := range 300 {
		if _, err := c.Put(ctx, fmt.Sprintf("k%d", i), strings.Repeat("v", 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	p.stop(syscall.SIGTERM) // all of it goes to the database
	p = start(t, dir, "--auto-defrag=false")
	c = p.dial()
	r, err := c.Delete(ctx, "k", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM)
	p = launch(t, dir, "--auto-defrag=false", "--bootstrap-defrag-threshold-megabytes=1")
	p.await()
	p.awaitLog("defragmented the database automatically")
}
