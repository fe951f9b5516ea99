package wal

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A packed record says what is new in its payload and refers for the rest to what was packed before it in its segment: what is written to a
// log is mostly like something that was written a moment ago. The window is the last windowBytes of the payloads of the segment's packed
// records, one behind the other, as they were given to Append. A segment begins with an empty one, so none needs another one to be read.
// What stands in a packed record in place of its payload:
//
//	offset size
//	 0     1-3  length of the payload in bytes, as a varint: at most packBytesMax
//	            sequences, until the payload has that length
//
// A sequence is a byte of two halves, literals that are taken as they are, and a match that is copied from what is before it:
//
//	literals << 4 | match   each 0 to 15; 15: bytes follow which are added to it, up to one that is not 255
//	                        (those of literals at once, those of match behind the distance)
//	literals                bytes
//	distance                varint, 1 to windowBytes: where the match begins, counted back from where it goes. It may reach
//	                        into what it gives
//	match + matchMin        is the length of the match
//
// A sequence whose literals complete the payload ends with them, and the half for its match is 0. The record's chain covers both these
// bytes and what they stand for, so that a mistake in packing or unpacking would be found as well as damage.

// packer packs payloads. The zero value is for a segment without packed records.
type packer struct {
	window []byte                    // at least windowBytes of it, if there are so many
	at     [1 << packHashBits]uint32 // base and the index in window where bytes with the hash stood last; any number may stand there
	base   uint32
}

// reset begins a segment.
func (p *packer) reset() {
	if p.window == nil {
		p.window = make([]byte, 0, windowBytes+windowSlack+packBytesMax)
	}
	p.window = p.window[:0]
	p.forget()
}

func (p *packer) forget() {
	clear(p.at[:])
	p.base = 1 // so that 0 is no index
}

// seed goes on with the window that a reader had at the end of its segment.
func (p *packer) seed(window []byte) {
	p.reset()
	p.window = append(p.window, window[max(0, len(window)-windowBytes):]...)
	for i := 0; i+8 <= len(p.window); i++ {
		p.at[packHash(binary.LittleEndian.Uint64(p.window[i:]))] = p.base + uint32(i)
	}
}

// slide drops what is too old. It must not come between a pack and taking it back.
func (p *packer) slide() {
	old := len(p.window) - windowBytes
	if old < windowSlack {
		return
	}
	p.window = append(p.window[:0], p.window[old:]...)
	if p.base += uint32(old); p.base > 1<<30 {
		p.forget()
	}
}

// takeBack makes the window what it was when it had so many bytes.
func (p *packer) takeBack(window int) { p.window = p.window[:window] }

// pack appends the payload, given in pieces, to the window, and packed to dst. False: it does not become smaller that way; then the window is
// as it was, and what is behind dst is of no use. Otherwise dst has room enough if it has room for the payload.
func (p *packer) pack(dst []byte, pieces ...[]byte) (_ []byte, ok bool) {
	start := len(p.window)
	for _, piece := range pieces {
		p.window = append(p.window, piece...)
	}
	w := p.window
	limit := len(dst) + len(w) - start
	dst = binary.AppendUvarint(dst, uint64(len(w)-start))
	done := start // what is in dst
	for i := start; i+8 <= len(w); {
		next := binary.LittleEndian.Uint64(w[i:])
		slot := &p.at[packHash(next)]
		from := int(*slot) - int(p.base)
		*slot = p.base + uint32(i)
		if uint(from) >= uint(i) || i-from > windowBytes || binary.LittleEndian.Uint32(w[from:]) != uint32(next) {
			i += 1 + (i-done)>>packPatience
			continue
		}
		for i > done && from > 0 && w[i-1] == w[from-1] && i-from <= windowBytes {
			i, from = i-1, from-1
		}
		n := matchMin + matchLen(w[from+matchMin:], w[i+matchMin:])
		dst = appendSequence(dst, w[done:i], i-from, n)
		for j := i + packStride; j < i+n && j+8 <= len(w); j += packStride { // some of what is inside of it
			p.at[packHash(binary.LittleEndian.Uint64(w[j:]))] = p.base + uint32(j)
		}
		i += n
		if done = i; len(dst) >= limit {
			break
		}
	}
	if done < len(w) && len(dst)+len(w)-done < limit {
		dst = appendSequence(dst, w[done:], 0, 0)
		done = len(w)
	}
	if done < len(w) || len(dst) >= limit {
		p.takeBack(start)
		return dst, false
	}
	return dst, true
}

func packHash(bytes uint64) uint64 {
	return bytes << (64 - 8*packHashBytes) * 0x9e3779b185ebca87 >> (64 - packHashBits)
}

// matchLen is how many bytes are equal at the beginning of both; b is not longer than a.
func matchLen(a, b []byte) int {
	n := 0
	for n+8 <= len(b) {
		if d := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); d != 0 {
			return n + bits.TrailingZeros64(d)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// appendSequence appends a sequence; a match of 0 bytes is none.
func appendSequence(dst, literals []byte, distance, match int) []byte {
	token := min(len(literals), 15) << 4
	if match > 0 {
		token |= min(match-matchMin, 15)
	}
	dst = appendRest(append(dst, byte(token)), len(literals))
	dst = append(dst, literals...)
	if match == 0 {
		return dst
	}
	return appendRest(binary.AppendUvarint(dst, uint64(distance)), match-matchMin)
}

func appendRest(dst []byte, n int) []byte {
	if n < 15 {
		return dst
	}
	for n -= 15; n >= 255; n -= 255 {
		dst = append(dst, 255)
	}
	return append(dst, byte(n))
}

var errPacked = errors.New("packed record is malformed")

// unpacker keeps the window of a reader.
type unpacker struct {
	window []byte // payloads alias it: what was taken is never written again
}

// unpack gives the payload of a packed record. It goes into the window only when it is taken.
func (u *unpacker) unpack(b []byte) ([]byte, error) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > packBytesMax {
		return nil, errPacked
	}
	u.room(int(length))
	start := len(u.window)
	end := start + int(length)
	w, b := u.window, b[n:]
	for len(w) < end {
		var err error
		if w, b, err = unpackSequence(w, b, end); err != nil {
			return nil, err
		}
	}
	if len(b) > 0 {
		return nil, errPacked
	}
	return w[start:end:end], nil
}

// take makes what unpack gave last a part of the window.
func (u *unpacker) take(payload []byte) { u.window = u.window[:len(u.window)+len(payload)] }

// room makes room for n bytes more.
func (u *unpacker) room(n int) {
	if len(u.window)+n <= cap(u.window) {
		return
	}
	window := make([]byte, 0, readBytes)
	u.window = append(window, u.window[max(0, len(u.window)-windowBytes):]...)
}

// unpackSequence appends what the sequence at the beginning of b gives to w, whose room is up to end, and answers the rest of b.
func unpackSequence(w, b []byte, end int) (_, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, errPacked
	}
	literals, match := int(b[0]>>4), int(b[0]&15)
	if literals, b, err = addRest(literals, b[1:]); err != nil {
		return nil, nil, err
	}
	if literals > len(b) || literals > end-len(w) {
		return nil, nil, errPacked
	}
	w, b = append(w, b[:literals]...), b[literals:]
	if len(w) == end {
		if match != 0 {
			return nil, nil, errPacked
		}
		return w, b, nil
	}
	distance, n := binary.Uvarint(b)
	if n <= 0 || distance == 0 || distance > uint64(min(len(w), windowBytes)) {
		return nil, nil, errPacked
	}
	if match, b, err = addRest(match, b[n:]); err != nil {
		return nil, nil, err
	}
	if match += matchMin; match > end-len(w) {
		return nil, nil, errPacked
	}
	for match > 0 { // one that reaches into itself is copied as it grows
		from := len(w) - int(distance)
		n := min(match, int(distance))
		w = append(w, w[from:from+n]...)
		match -= n
	}
	return w, b, nil
}

// addRest reads what is added to a half that is 15.
func addRest(n int, b []byte) (int, []byte, error) {
	if n < 15 {
		return n, b, nil
	}
	for i, c := range b {
		if n += int(c); n > packBytesMax {
			break
		}
		if c != 255 {
			return n, b[i+1:], nil
		}
	}
	return 0, nil, errPacked
}
