package wal

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// golden is the state of one script: a log on an in-memory file system whose calls are recorded.
type golden struct {
	mem     *vfs.Mem
	rec     vfs.Recorder
	before  func(vfs.Op) error
	o       Options
	w       *WAL
	written int
}

func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		g := &golden{mem: vfs.NewMem(), o: testOptions()}
		datadriven.RunTest(t, path, g.run)
	})
}

// run executes one command and gives the calls it made, in order, then its outcome.
//
//	open [header=N]          open the log; each new segment begins with one record of N bytes
//	append sizes=(N,...)     append records of these sizes
//	sync | close | reserve
//	release before=SEGMENT
//	crash keep=all|none|sectors=(OFFSET,...)  lose what is not durable, or keep it, or keep sectors of segments
//	capacity bytes=N         limit the disk
//	fail kind=KIND [error=enospc|eio] [bytes=N]  fail the next call of a kind, a write after N bytes
//	patch file=NAME offset=N bytes=(..)
//	scan | state | files
func (g *golden) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	err := g.command(t, d, &out)
	if err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if text := g.rec.Take() + out.String(); text != "" {
		return text
	}
	return "ok\n"
}

func (g *golden) fs() vfs.FS {
	before := func(op vfs.Op) error {
		if g.before != nil {
			return g.before(op)
		}
		return nil
	}
	return vfs.Hooked(g.mem, vfs.Hooks{Before: before, After: g.rec.After})
}

func (g *golden) command(t *testing.T, d *datadriven.TestData, out *strings.Builder) (err error) {
	switch d.Cmd {
	case "open":
		if d.HasArg("header") {
			var n int
			d.ScanArgs(t, "header", &n)
			g.o.Header = func() []Record { return []Record{{Type: 9, Data: make([]byte, n)}} }
		}
		g.w, err = Open(g.fs(), "wal", g.o, describe(out))
		return err
	case "append":
		var recs []Record
		for _, arg := range d.CmdArgs {
			for _, v := range arg.Vals {
				var n int
				fmt.Sscan(v, &n)
				g.written++
				recs = append(recs, numbered(g.written, n))
			}
		}
		pos, err := g.w.Append(recs...)
		if err == nil {
			fmt.Fprintf(out, "at %s\n", pos)
		}
		return err
	case "sync":
		return g.w.Sync()
	case "close":
		return g.w.Close()
	case "reserve":
		return g.w.TryReserve()
	case "release":
		var n uint64
		d.ScanArgs(t, "before", &n)
		return g.w.Release(Position{Segment: n})
	case "crash":
		g.crash(t, d)
	case "capacity":
		var n int64
		d.ScanArgs(t, "bytes", &n)
		g.mem.SetCapacity(n)
	case "fail":
		g.fail(t, d)
	case "patch":
		var name, text string
		var off int64
		d.ScanArgs(t, "file", &name)
		d.ScanArgs(t, "offset", &off)
		d.ScanArgs(t, "text", &text)
		patch(t, g.mem, name, off, []byte(text))
	case "scan":
		return Scan(g.mem, "wal", describe(out))
	case "state":
		fmt.Fprintf(out, "size=%d space-low=%v\n", g.w.Size(), g.w.SpaceLow())
	case "files":
		names, err := g.mem.List("wal")
		fmt.Fprintln(out, strings.Join(names, " "))
		return err
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	return nil
}

func describe(out *strings.Builder) func(Position, Record) error {
	return func(pos Position, r Record) error {
		fmt.Fprintf(out, "%s type=%d %.8q bytes=%d\n", pos, r.Type, r.Data, len(r.Data))
		return nil
	}
}

func (g *golden) crash(t *testing.T, d *datadriven.TestData) {
	if d.HasArg("keep") {
		var keep string
		d.ScanArgs(t, "keep", &keep)
		g.mem = g.mem.Crash(map[string]func(vfs.Unsynced) bool{"all": vfs.KeepAll, "none": vfs.LoseAll}[keep])
		return
	}
	kept := map[int64]bool{}
	for _, arg := range d.CmdArgs {
		for _, v := range arg.Vals {
			var n int64
			fmt.Sscan(v, &n)
			kept[n] = true
		}
	}
	g.mem = g.mem.Crash(func(u vfs.Unsynced) bool { return !u.Name && !u.Resize && kept[u.Offset] })
}

func (g *golden) fail(t *testing.T, d *datadriven.TestData) {
	var kind string
	d.ScanArgs(t, "kind", &kind)
	err := error(syscall.EIO)
	if d.HasArg("enospc") {
		err = syscall.ENOSPC
	}
	if d.HasArg("bytes") {
		var n int64
		d.ScanArgs(t, "bytes", &n)
		err = &vfs.ShortWrite{Bytes: n, Err: err}
	}
	g.before = vfs.FailNth(1, err, func(op vfs.Op) bool { return string(op.Kind) == kind })
}
