package raftstore

import (
	"encoding/binary"
	"errors"
	"sync"
)

// hashPoint is what the rolling hash was once the entry with the index was applied.
type hashPoint struct{ index, hash uint64 }

// hashRing keeps the last hashRingMax points, at indexes that are the same on all members: multiples of hashInterval, and compactions. Who
// applies adds, calls read.
type hashRing struct {
	mu     sync.Mutex
	points []hashPoint // ascending
}

// add takes the point behind those that are there.
func (r *hashRing) add(p hashPoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.points) == hashRingMax {
		copy(r.points, r.points[1:])
		r.points = r.points[:hashRingMax-1]
	}
	r.points = append(r.points, p)
}

// reset forgets all points: a snapshot took the place of the state they belong to.
func (r *hashRing) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.points = r.points[:0]
}

// above are the points above index, ascending.
func (r *hashRing) above(index uint64) []hashPoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.points)
	for i > 0 && r.points[i-1].index > index {
		i--
	}
	return append([]hashPoint(nil), r.points[i:]...)
}

// encodeHashes is the answer to callHashes: index u64 | hash u64 of each point, little endian.
func encodeHashes(points []hashPoint) []byte {
	b := make([]byte, 0, hashPointBytes*len(points))
	for _, p := range points {
		b = binary.LittleEndian.AppendUint64(b, p.index)
		b = binary.LittleEndian.AppendUint64(b, p.hash)
	}
	return b
}

const hashPointBytes = 16

func decodeHashes(b []byte) ([]hashPoint, error) {
	if len(b)%hashPointBytes != 0 || len(b) > hashRingMax*hashPointBytes {
		return nil, errors.New("malformed hashes")
	}
	var points []hashPoint
	for ; len(b) > 0; b = b[hashPointBytes:] {
		points = append(points, hashPoint{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])})
	}
	return points, nil
}
