// Package protofields goes through encoded messages without making them, for clients under measure: to make all of a large
// answer would cost the client more than it costs the server to send it.
package protofields

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed: the bytes are no message.
var ErrMalformed = errors.New("malformed message")

// Each calls f with each field of an encoded message: with the bytes of one that has a length, which are part of b, with the number of one
// that is a varint. An error of f ends it.
func Each(b []byte, f func(num protowire.Number, data []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ErrMalformed
		}
		b = b[n:]
		var data []byte
		var number uint64
		switch typ {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return ErrMalformed
		}
		b = b[n:]
		if err := f(num, data, number); err != nil {
			return err
		}
	}
	return nil
}
