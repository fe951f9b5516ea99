package main

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/test/internal/measure"
)

const (
	probeRate  = 40 // a second
	probeBytes = vfs.DirectBytes
	probeFile  = 4 << 20
	// stallMin is what no sync takes but where the disk does not answer: a hundred
	// times what it takes otherwise.
	stallMin = 20 * time.Millisecond
)

// probe tells what the disk does to anybody's sync: it writes a block into a file
// of its own beside the data dir, which was written before, and syncs it, as the
// server's log does.
type probe struct {
	now  atomic.Pointer[recorder] // of the window
	file vfs.File
}

func newProbe(dir string) (p *probe, err error) {
	p = &probe{}
	p.now.Store(newRecorder())
	name := filepath.Join(dir, "probe")
	f, err := vfs.OS.Create(name)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(make([]byte, probeFile), 0)
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	if err == nil {
		p.file, err = vfs.OS.OpenDirect(name)
	}
	return p, err
}

// run goes on until ctx ends, and closes the file.
func (p *probe) run(ctx context.Context) (err error) {
	defer p.file.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	block := vfs.AlignedBuffer(probeBytes)[:probeBytes]
	_, _ = measure.NewPacer(probeRate).Run(ctx, nil, func(i int, _ time.Time) {
		r, begin := p.now.Load(), time.Now()
		if _, err = p.file.WriteAt(block, int64(i)*probeBytes%probeFile); err == nil {
			err = p.file.Sync()
		}
		if err != nil {
			stop()
		}
		r.synced(begin, time.Since(begin))
	})
	return err
}
