package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const headerType = 9

var errCrash = errors.New("the machine has crashed")

// twin is the dumb model: all records that were appended, in order, and how many of them are surely there.
type twin struct {
	recs     []twinRecord
	synced   int    // recs[:synced] were acknowledged by Sync or seen by an Open that returned
	released uint64 // segments before this one may be gone
}

type twinRecord struct {
	Record
	pos Position // zero while it is not known
}

// modelRun is one random sequence against the twin.
type modelRun struct {
	t       *testing.T
	r       *rand.Rand
	mem     *vfs.Mem
	o       Options
	w       *WAL // nil after a crash
	m       twin
	written int

	opsLeft int64 // until the crash; negative for never
	crashed bool
	short   bool // the next write is cut short by a full disk
}

// TestModel runs random sequences of appends, syncs, releases, full disks, crashes at any call, and reopenings. After each
// reopening everything that was synced is there in order, perhaps followed by a prefix of what was not.
func TestModel(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			run := &modelRun{t: t, r: r, mem: vfs.NewMem(), o: testOptions(), opsLeft: -1}
			if seed%2 == 1 {
				run.o.PackBytes = packBytesMax
			}
			run.o.Header = func() []Record {
				return []Record{{Type: headerType, Data: make([]byte, r.IntN(4000))}}
			}
			for range 80 {
				run.step()
			}
			run.crash()
			run.opsLeft = -1
			run.open()
		})
	}
}

func (m *modelRun) fs() vfs.FS {
	return vfs.Hooked(m.mem, vfs.Hooks{Before: func(op vfs.Op) error {
		if m.crashed || m.opsLeft == 0 {
			m.crashed = true
			if op.Kind == vfs.OpWrite && m.opsLeft == 0 && m.r.IntN(2) == 0 {
				m.opsLeft = -1
				return &vfs.ShortWrite{Bytes: m.r.Int64N(op.Bytes), Err: errCrash}
			}
			return errCrash
		}
		m.opsLeft--
		if m.short && op.Kind == vfs.OpWrite {
			m.short = false
			return &vfs.ShortWrite{Bytes: m.r.Int64N(op.Bytes), Err: syscall.ENOSPC}
		}
		return nil
	}})
}

func (m *modelRun) step() {
	if m.w == nil {
		m.open()
		return
	}
	switch n := m.r.IntN(100); {
	case n < 50:
		m.append()
	case n < 75:
		m.sync()
	case n < 82:
		m.release()
	case n < 86:
		m.mem.SetCapacity(m.mem.Used() + m.r.Int64N(2*segmentBytesMin))
		_ = m.w.TryReserve()
	case n < 88:
		m.mem.SetCapacity(0)
	case n < 90:
		m.short = true
	case n < 93:
		m.opsLeft = m.r.Int64N(12)
	case n < 96:
		m.close()
	default:
		m.crash()
	}
	if m.crashed {
		m.crash()
	}
}

func (m *modelRun) append() {
	var recs []Record
	var pending []twinRecord
	for range 1 + m.r.IntN(4) {
		m.written++
		size := m.r.IntN(600)
		if m.r.IntN(10) == 0 {
			size = m.r.IntN(2000)
		}
		rec := packable(m.written, size)
		recs = append(recs, rec)
		pending = append(pending, twinRecord{Record: rec})
	}
	pos, err := m.w.Append(recs...)
	switch {
	case err == nil:
		for i := range pending {
			pending[i].pos = pos
		}
	case errors.Is(err, ErrNoSpace):
		return
	case !m.crashed:
		m.t.Fatalf("append: %v", err)
	}
	m.m.recs = append(m.m.recs, pending...)
}

func (m *modelRun) sync() {
	err := m.w.Sync()
	if err == nil {
		m.m.synced = len(m.m.recs)
	} else if !m.crashed {
		m.t.Fatalf("sync: %v", err)
	}
}

func (m *modelRun) release() {
	if m.m.synced == 0 {
		return
	}
	before := m.m.recs[m.r.IntN(m.m.synced)].pos
	m.m.released = max(m.m.released, before.Segment)
	if err := m.w.Release(before); err != nil && !m.crashed {
		m.t.Fatalf("release: %v", err)
	}
}

func (m *modelRun) close() {
	err := m.w.Close()
	if err == nil {
		m.m.synced = len(m.m.recs)
		m.w = nil
	} else if !m.crashed {
		m.t.Fatalf("close: %v", err)
	}
}

func (m *modelRun) crash() {
	if m.w != nil && m.w.file != nil {
		m.w.file.Close()
	}
	m.mem = m.mem.Crash(vfs.Seeded(m.r.Uint64()))
	m.w, m.crashed, m.opsLeft, m.short = nil, false, -1, false
}

// open reopens the log, at times with a crash on the way, and compares what is there.
func (m *modelRun) open() {
	if m.r.IntN(4) == 0 {
		m.opsLeft = m.r.Int64N(30)
	}
	m.o.SegmentBytes = segmentBytesMin * int64(1+m.r.IntN(2))
	var got []twinRecord
	first := true
	w, err := Open(m.fs(), "wal", m.o, func(pos Position, r Record) error {
		if first && r.Type != headerType {
			return fmt.Errorf("the log begins with a record of type %d", r.Type)
		}
		first = false
		if r.Type != headerType {
			got = append(got, twinRecord{Record: r, pos: pos})
		}
		return nil
	})
	if err != nil {
		if m.crashed {
			m.crash()
			return
		}
		if errors.Is(err, ErrNoSpace) {
			m.mem.SetCapacity(0)
			return
		}
		m.t.Fatalf("open: %v", err)
	}
	m.compare(got)
	m.w = w
	if m.crashed {
		m.crash()
	}
}

func (m *modelRun) compare(got []twinRecord) {
	want := m.m.recs
	gone := 0 // records in segments that may be gone
	for gone < m.m.synced && want[gone].pos.Segment < m.m.released {
		gone++
	}
	start := gone
	if len(got) > 0 {
		same := func(w twinRecord) bool { return bytes.Equal(w.Data, got[0].Data) }
		start = slices.IndexFunc(want, same)
		if start < 0 || start > gone {
			m.t.Fatalf("log begins with record %d of %d, at most %d were released", start, len(want), gone)
		}
	}
	end := start + len(got)
	if end < m.m.synced {
		m.t.Fatalf("records %d to %d are there, %d were synced", start, end, m.m.synced)
	}
	if end > len(want) {
		m.t.Fatalf("records %d to %d are there, %d were appended", start, end, len(want))
	}
	for i, g := range got {
		w := want[start+i]
		if g.Type != w.Type || !bytes.Equal(g.Data, w.Data) {
			m.t.Fatalf("record %d is type %d %.8q, want type %d %.8q", start+i, g.Type, g.Data, w.Type, w.Data)
		}
	}
	m.m.recs = append([]twinRecord{}, got...)
	m.m.synced = len(got)
}
