package watchcache

import (
	"sync"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// event is one change in the log. It holds the encoded bytes of the versions, not
// the versions: a *mvcc.Version would keep the whole chain of older ones alive.
type event struct {
	mod       mvcc.Revision
	tombstone bool
	key       []byte        // aliases kv
	kv        []byte        // encoded mvccpb.KeyValue
	prev      mvcc.Encoding // the one before it, none on create
	topic     *topic        // whose sub-log it is in, nil if none; guarded by Hub.logMu

	// frames are the two wire forms, made when first asked for: [0] without the
	// previous version, [1] with it. All watchers share them.
	once   [2]sync.Once
	frames [2]*Frame
}

func (e *event) set(ev mvcc.Event) {
	v := ev.Version
	e.mod, e.tombstone, e.key, e.kv = v.Mod(), v.Tombstone(), v.Key(), v.KV()
	if ev.Prev != nil {
		e.prev = ev.Prev.Encoding()
	}
}

// charge is what e counts against the window's bytes: the versions, and the frame
// with the previous version, which most watchers ask for. That of a long event has
// the versions as they are, and takes less.
func (e *event) charge() int64 {
	return eventOverhead + 2*int64(len(e.kv)+e.prev.Len())
}

// frame returns e as a field of a WatchResponse. It is shared and never modified.
// Only if the previous version has left memory is it read from rows, and the frame
// is the caller's own.
func (e *event) frame(prev bool, rows mvcc.RowReader) (*Frame, error) {
	i := 0
	if prev && !e.prev.IsZero() {
		i = 1
		if !e.prev.Resident() {
			p, err := e.prev.Read(rows)
			if err != nil {
				return nil, err
			}
			return newFrame(e.tombstone, e.kv, p), nil
		}
	}
	e.once[i].Do(func() {
		var p []byte
		if i == 1 {
			p = e.prev.Bytes()
		}
		e.frames[i] = newFrame(e.tombstone, e.kv, p)
	})
	return e.frames[i], nil
}
