package mvcc

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/kubeshim/shim/pkg/auth"
)

// fold takes an entry into the rolling hash: the hash before, the index, and
// what the entry has come to. Members at equal indexes must have equal hashes
// (I9). What is folded are outcomes, not requests: members that were given the
// same log but understood it differently part here.
//
// The bytes hashed are the following numbers, 8 bytes little endian each, and
// the encoded versions behind them:
//
//	hash before | index | refused (0, 1) | revision | compacted | leases |
//	attached keys | alarms | then for each event: sub | length | KV
//	then for each lease that the entry granted or checkpointed:
//	id | ttl | remaining
//	then, if the entry has changed users, roles or whether they count:
//	enabled (0, 1) | auth revision | auth.State.Sum
func (s *State) fold(e Entry, res Result) {
	refused := uint64(0)
	if res.Err != nil {
		refused = 1
	}
	b := s.foldBuf[:0]
	for _, x := range [...]uint64{
		s.hash, e.Index, refused, uint64(s.revision), uint64(s.compacted),
		uint64(s.leases.Len()), uint64(s.attached.Len()), uint64(len(s.meta.alarms)),
	} {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	switch r := res.Response.(type) {
	case *LeaseGrantResult:
		b = foldLease(b, Lease{ID: r.ID, TTL: r.TTL})
	case *LeaseCheckpointResult:
		for _, l := range r.Leases {
			b = foldLease(b, l)
		}
	}
	if s.auth != s.folded {
		b = foldAuth(b, s.auth)
		s.folded = s.auth
	}
	if len(res.Events) == 0 {
		s.foldBuf = b
		s.hash = xxhash.Sum64(b)
		return
	}
	d := &s.digest
	d.Reset()
	d.Write(b)
	for _, ev := range res.Events {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(ev.Version.sub))
		b = binary.LittleEndian.AppendUint64(b, uint64(ev.Version.size))
		d.Write(b)
		d.Write(ev.Version.KV()) // it was written just now, and is in memory
	}
	s.foldBuf = b
	s.hash = d.Sum64()
}

func foldAuth(b []byte, a *auth.State) []byte {
	enabled := uint64(0)
	if a.Enabled() {
		enabled = 1
	}
	b = binary.LittleEndian.AppendUint64(b, enabled)
	b = binary.LittleEndian.AppendUint64(b, a.Revision())
	return binary.LittleEndian.AppendUint64(b, a.Sum())
}

func foldLease(b []byte, l Lease) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(l.ID))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.TTL))
	return binary.LittleEndian.AppendUint64(b, uint64(l.Remaining))
}
