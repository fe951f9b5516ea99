package watchcache

import (
	"encoding/binary"
	"math/bits"
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
	frames [2][]byte
}

func (e *event) set(ev mvcc.Event) {
	v := ev.Version
	e.mod, e.tombstone, e.key, e.kv = v.Mod(), v.Tombstone(), v.Key(), v.KV()
	if ev.Prev != nil {
		e.prev = ev.Prev.Encoding()
	}
}

// charge is what e counts against the window's bytes: the versions, and the frame
// with the previous version, which most watchers ask for.
func (e *event) charge() int64 {
	return eventOverhead + 2*int64(len(e.kv)+e.prev.Len())
}

// frame returns e as a field of a WatchResponse: tag, length, mvccpb.Event. It is
// shared and never modified. Only if the previous version has left memory is it
// read from rows, and the frame is the caller's own.
func (e *event) frame(prev bool, rows mvcc.RowReader) ([]byte, error) {
	i := 0
	if prev && !e.prev.IsZero() {
		i = 1
		if !e.prev.Resident() {
			p, err := e.prev.Read(rows)
			if err != nil {
				return nil, err
			}
			return appendFrame(nil, e.tombstone, e.kv, p), nil
		}
	}
	e.once[i].Do(func() {
		var p []byte
		if i == 1 {
			p = e.prev.Bytes()
		}
		e.frames[i] = appendFrame(nil, e.tombstone, e.kv, p)
	})
	return e.frames[i], nil
}

// Tags of the messages an event is framed with.
//
//	WatchResponse.events = 11   0x5a len
//	  Event.type         = 1    0x08 0x01   (DELETE; PUT is the default and absent)
//	  Event.kv           = 2    0x12 len KeyValue
//	  Event.prev_kv      = 3    0x1a len KeyValue (absent without one)
const (
	tagEvents = 0x5a
	tagType   = 0x08
	tagKV     = 0x12
	tagPrevKV = 0x1a

	typeDelete = 1
)

// appendFrame appends the event, exactly sized if dst is nil.
func appendFrame(dst []byte, tombstone bool, kv, prev []byte) []byte {
	body := 1 + uvarintLen(uint64(len(kv))) + len(kv)
	if tombstone {
		body += 2
	}
	if prev != nil {
		body += 1 + uvarintLen(uint64(len(prev))) + len(prev)
	}
	if dst == nil {
		dst = make([]byte, 0, 1+uvarintLen(uint64(body))+body)
	}
	dst = append(dst, tagEvents)
	dst = binary.AppendUvarint(dst, uint64(body))
	if tombstone {
		dst = append(dst, tagType, typeDelete)
	}
	dst = append(dst, tagKV)
	dst = binary.AppendUvarint(dst, uint64(len(kv)))
	dst = append(dst, kv...)
	if prev != nil {
		dst = append(dst, tagPrevKV)
		dst = binary.AppendUvarint(dst, uint64(len(prev)))
		dst = append(dst, prev...)
	}
	return dst
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }
