package raftstore

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// script runs one data dir through the commands of a golden file and writes down what happens to the disk, to the watchers and to
// the callers, in order.
type script struct {
	t   *testing.T
	h   *harness
	s   *Store
	mu  sync.Mutex
	log []string
}

func (g *script) note(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

func (g *script) take() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	lines := g.log
	g.log = nil
	return strings.Join(append(lines, ""), "\n")
}

func newScript(t *testing.T) *script {
	g := &script{t: t, h: newHarness(t)}
	g.h.fs = vfs.Hooked(g.h.fs, vfs.Hooks{After: func(op vfs.Op, err error) {
		// The spare segment is made by a goroutine of the WAL's, at a time of its own.
		if op.Kind.Changes() && !strings.Contains(op.Path, "spare") && op.Kind != vfs.OpSyncDir {
			g.note("%s %s%s", op.Kind, strings.TrimPrefix(op.Path, "/data/member/"), map[bool]string{true: " failed"}[err != nil])
		}
	}})
	g.h.adjust = func(c *Config) {
		c.firstID = 0x3a5f9c1d7e24b610 // how well a record is packed depends on the ID, most of all where its lowest seven bits overflow
		c.OnApply = func(v *mvcc.View, events []mvcc.Event) { g.note("publish index %d, %d events", v.Index(), len(events)) }
		c.OnEvent = func(e Event) {
			switch e.(type) {
			case CheckpointDone, CompactionDone, AlarmChanged:
				g.note("event: %s", durations.ReplaceAllString(e.String(), "in X"))
			}
		}
	}
	return g
}

var durations = regexp.MustCompile(`in \S+s$`)

// TestOrder is golden for the order of write, fsync, publish, events and answer: a lost fsync becomes a difference in text.
func TestOrder(t *testing.T) {
	g := newScript(t)
	defer func() {
		if g.s != nil {
			g.s.Close()
		}
	}()
	datadriven.RunTest(t, "testdata/order.txt", func(_ *testing.T, d *datadriven.TestData) string { return g.command(d) })
}

func (g *script) command(d *datadriven.TestData) string {
	ctx := context.Background()
	var err error
	switch d.Cmd {
	case "open":
		g.s, err = Open(g.h.config())
	case "close":
		err, g.s = g.s.Close(), nil
	case "put":
		var key, value string
		d.ScanArgs(g.t, "key", &key)
		d.ScanArgs(g.t, "value", &value)
		var res mvcc.Result
		res, err = tryPut(g.s, key, value, 0)
		g.note("answer revision %d", res.Revision)
	case "delete":
		var key string
		d.ScanArgs(g.t, "key", &key)
		var res mvcc.Result
		res, err = g.s.Propose(ctx, Command{Kind: mvcc.KindDeleteRange, Request: &pb.InternalRaftRequest{
			DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}})
		g.note("answer revision %d", res.Revision)
	case "compact":
		var rev int64
		d.ScanArgs(g.t, "rev", &rev)
		_, err = g.s.Propose(ctx, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev}}})
		if err == nil {
			err = g.s.CompactWait(ctx, mvcc.Revision(rev))
		}
	case "checkpoint":
		err = g.s.Checkpoint(ctx)
	case "dump":
		var b bytes.Buffer
		if err := dump(g.h.fs, Dirs{Data: g.h.dir}, g.h.db, &b); err != nil {
			return err.Error() + "\n"
		}
		g.take()
		return b.String()
	case "check":
		found := 0
		err = check(g.h.fs, Dirs{Data: g.h.dir}, g.h.db, func(f Finding) { found++; g.note("%v", f) })
		g.note("%d findings", found)
	default:
		g.t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	if err != nil {
		g.note("error: %v", err)
	}
	return g.take()
}
