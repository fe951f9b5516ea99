package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

const compactRevision = "etcd_debugging_mvcc_compact_revision"

// compacting is a server with a client.
type compacting struct {
	s   *script.Server
	cli *clientv3.Client
}

func startCompacting(t *testing.T, binary string, flags ...string) compacting {
	t.Helper()
	s, err := script.Start(binary, t.TempDir(), flags)
	if err != nil {
		t.Fatal(err)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.ClientAddress()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cli.Close(), s.Stop()); err != nil {
			t.Error(err)
		}
	})
	return compacting{s, cli}
}

func bothCompacting(t *testing.T, flags ...string) map[string]compacting {
	if *only != "" {
		t.Skip("needs both servers")
	}
	return map[string]compacting{"etcd": startCompacting(t, peers.Path(t, "etcd"), flags...), "shim": startCompacting(t, shimPath(t), flags...)}
}

// TestAutoCompaction: with a retention of a second both servers compact while there are writes, and come to the last revision once there are
// none. (The mode "revision" looks every 5 minutes: pkg/compact has the schedule of both.)
func TestAutoCompaction(t *testing.T) {
	for name, c := range bothCompacting(t, "--auto-compaction-mode=periodic", "--auto-compaction-retention=1s") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			revision := func() string { return scrapeOnce(t, c.s, "/metrics").values[compactRevision] }
			last := int64(0)
			for last < 20 || revision() == "-1" {
				r, err := c.cli.Put(ctx, "k", "v")
				if err != nil {
					t.Fatal(err)
				}
				last = r.Header.Revision
			}
			for revision() != fmt.Sprint(last) {
				if ctx.Err() != nil {
					t.Fatalf("compacted up to %s and not up to %d", revision(), last)
				}
				time.Sleep(50 * time.Millisecond)
			}
			if _, err := c.cli.Get(ctx, "k", clientv3.WithRev(last-1)); !errors.Is(err, rpctypes.ErrCompacted) {
				t.Errorf("a read before: %v", err)
			}
			if r, err := c.cli.Get(ctx, "k", clientv3.WithRev(last)); err != nil || len(r.Kvs) != 1 {
				t.Errorf("a read at the compacted revision: %v", err)
			}
		})
	}
}

// TestManyCompact: of many that compact at once, as API servers do, one succeeds for each revision, and the others hear that it is done; with
// physical they hear it when the rows are gone.
func TestManyCompact(t *testing.T) {
	answers := map[string][]string{}
	for name, c := range bothCompacting(t) {
		for range 40 {
			if _, err := c.cli.Put(t.Context(), "k", "v"); err != nil {
				t.Fatal(err)
			}
		}
		for _, rev := range []int64{20, 20, 10, 41, 100} {
			for _, opts := range [][]clientv3.CompactOption{nil, {clientv3.WithCompactPhysical()}} {
				got := compactAtOnce(t, c.cli, rev, opts)
				answers[name] = append(answers[name], fmt.Sprint(rev, opts != nil, got))
			}
		}
	}
	if !slices.Equal(answers["etcd"], answers["shim"]) {
		t.Errorf("etcd says %q and shim %q", answers["etcd"], answers["shim"])
	}
	t.Logf("%q", answers["etcd"])
}

// compactAtOnce counts the answers of eight.
func compactAtOnce(t *testing.T, cli *clientv3.Client, rev int64, opts []clientv3.CompactOption) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[string]int{}
	for range 8 {
		wg.Go(func() {
			r, err := cli.Compact(t.Context(), rev, opts...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answers[err.Error()]++
			} else {
				answers[fmt.Sprint("ok at ", r.Header.Revision)]++
			}
		})
	}
	wg.Wait()
	return answers
}
