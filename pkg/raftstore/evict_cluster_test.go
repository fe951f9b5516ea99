package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// versionValue is what a key has as its nth version.
func versionValue(key []byte, n int64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s-%d ", key, n), 100)
}

// readVersions reads every key of a View as a client's list does, from memory or not, and compares it with what its version is.
func readVersions(v *mvcc.View) (keys int, err error) {
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return 0, err
	}
	rows, err := v.Rows(0)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for _, x := range res.Versions {
		var kv mvccpb.KeyValue
		b, err := x.Encoding().Read(rows)
		if err == nil {
			err = proto.Unmarshal(b, &kv)
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", x.Key(), err)
		}
		if !bytes.Equal(kv.Value, versionValue(kv.Key, kv.Version)) {
			return 0, fmt.Errorf("%s has %.20q as version %d", kv.Key, kv.Value, kv.Version)
		}
	}
	return len(res.Versions), nil
}

// evictionKeys are what the test of evictions beside an install writes.
const evictionKeys = 40

// writeVersions writes each key so many times, and compacts now and then.
func writeVersions(t *testing.T, s *Store, rounds int) {
	for round := range rounds {
		for k := range evictionKeys {
			key := fmt.Append(nil, "k", k)
			n := int64(1)
			if v := s.View().Get(key); v != nil {
				n = v.Num() + 1
			}
			put(t, s, string(key), string(versionValue(key, n)))
		}
		if round%4 == 3 {
			if _, err := s.Propose(t.Context(), compactCommand(int64(s.View().Revision())-evictionKeys)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// evictAndRead lets values leave memory, and reads, again and again until ctx ends.
func evictAndRead(ctx context.Context, t *testing.T, s *Store, beside *sync.WaitGroup, reads *atomic.Int64) {
	beside.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if err := s.Checkpoint(context.Background()); err != nil {
				t.Error(err)
			}
			evictAll(t, s)
		}
	})
	for range 2 {
		beside.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
				n, err := readVersions(s.View())
				if errors.Is(err, mvcc.ErrOvertaken) { // by a compaction, or by the snapshot: a client's list is made from the next View
					continue
				}
				if err != nil || n != evictionKeys {
					t.Errorf("%d keys, %v", n, err)
					return
				}
				reads.Add(1)
			}
		})
	}
}

// TestEvictionsBesideInstall: values leave memory on all of three members, one of which gets a snapshot meanwhile, while they are written,
// compacted and read. Nobody reads a wrong one or none, and at last all have the same.
func TestEvictionsBesideInstall(t *testing.T) { synctest.Test(t, testEvictionsBesideInstall) }

func testEvictionsBesideInstall(t *testing.T) {
	c := newCluster(t, 3, fewEntries, func(_ int, cfg *Config) {
		cfg.Memory = compact.Memory{Limit: compact.MemoryLimitMin, HistoryBytes: 32 << 10}
	})
	leader := c.stores[c.leader()]
	i := c.follower()
	writeVersions(t, leader, 2)
	c.stop(i)
	writeVersions(t, leader, 20)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var beside sync.WaitGroup
	var reads atomic.Int64
	c.start(i)
	for _, s := range c.stores {
		evictAndRead(ctx, t, s, &beside, &reads)
	}
	for !c.members[i].saw("installed a snapshot") {
		writeVersions(t, leader, 1)
	}
	writeVersions(t, leader, 4)
	cancel()
	beside.Wait()
	c.converge()
	var all []string
	for n, s := range c.stores {
		evictAll(t, s)
		if r := s.View().Residency(); r.Evictions == 0 || reads.Load() == 0 {
			t.Errorf("member %d: %d reads beside %+v", n, reads.Load(), r)
		}
		all = append(all, contents(t, s.View()))
	}
	if all[1] != all[0] || all[2] != all[0] {
		t.Error("the members hold different values")
	}
}
