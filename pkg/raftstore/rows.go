package raftstore

import (
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// rowsRequest asks for the hash over all rows at a revision. All integers are little endian.
//
//	revision i64 | wait u8      1: a member that is behind first catches up with the leader
type rowsRequest struct {
	rev  mvcc.Revision
	wait bool
}

const rowsRequestBytes = 9

func (r rowsRequest) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(r.rev))
	if r.wait {
		return append(b, 1)
	}
	return append(b, 0)
}

// rowsHash is the answer. Members that have compacted to different revisions have different rows.
//
//	hash u32 | compacted revision i64
type rowsHash struct {
	hash      uint32
	compacted mvcc.Revision
}

const rowsHashBytes = 12

func (h rowsHash) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, h.hash)
	return binary.LittleEndian.AppendUint64(b, uint64(h.compacted))
}

func decodeRowsHash(b []byte) (rowsHash, bool) {
	if len(b) != rowsHashBytes {
		return rowsHash{}, false
	}
	return rowsHash{binary.LittleEndian.Uint32(b), mvcc.Revision(binary.LittleEndian.Uint64(b[4:]))}, true
}

func (s *Store) answerRows(ctx context.Context, request []byte) ([]byte, error) {
	if len(request) != rowsRequestBytes {
		return nil, status.Error(codes.InvalidArgument, "malformed question for rows")
	}
	rev, v := mvcc.Revision(binary.LittleEndian.Uint64(request)), s.View()
	if request[8] == 1 && v.Revision() < rev {
		var err error
		if v, err = s.ReadView(ctx); err != nil {
			return nil, err
		}
	}
	hash, compacted, _, err := v.HashKV(ctx, rev)
	if err != nil {
		return nil, err
	}
	return rowsHash{hash, compacted}.encode(), nil
}

// hashRows asks all members for the hash of their rows at the revision of a View. It gives who has which, this member included, of those
// that answered and have compacted as far as the View.
func (s *Store) hashRows(ctx context.Context, v *mvcc.View, wait bool) (byHash map[uint64][]uint64, answers int, err error) {
	hash, compacted, rev, err := v.HashKV(ctx, v.Revision())
	if err != nil {
		return nil, 0, err
	}
	byHash, answers = map[uint64][]uint64{uint64(hash): {s.id.member}}, 1
	for id, answer := range s.askAll(ctx, callRows, rowsRequest{rev, wait}.encode()) {
		if other, ok := decodeRowsHash(answer); ok && other.compacted == compacted {
			byHash[uint64(other.hash)] = append(byHash[uint64(other.hash)], id)
			answers++
		}
	}
	return byHash, answers, nil
}

// compareRows compares what the members hold, not how they came to it: it finds memory or a database that was changed behind the log's back.
func (c *comparison) compareRows(ctx context.Context) {
	s := c.s
	v, err := s.ReadView(ctx)
	if err != nil {
		return // not the leader any more, or soon
	}
	byHash, answers, err := s.hashRows(ctx, v, true)
	members := len(s.cluster.Load().Members())
	switch {
	case err != nil: // compacted meanwhile
	case len(byHash) > 1:
		s.report(ctx, &HashMismatch{Revision: v.Revision(), Members: byHash, Suspects: suspects(byHash, members)})
	case answers == members:
		c.compacted = v.Compacted()
	}
}

// compareWithOthers is etcd's initial corruption check, of a member that has been one before: it does not start beside others that have
// other rows at the same revision. Those that do not answer, or have compacted more or less, say nothing.
func (o *opening) compareWithOthers() error {
	s := o.s
	if !s.cfg.InitialCorruptCheck || o.boot != nil || o.running != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.requestTimeout())
	defer cancel()
	byHash, _, err := s.hashRows(ctx, s.View(), false)
	if err != nil {
		return fmt.Errorf("hash the rows: %w", err)
	}
	if len(byHash) > 1 {
		return fmt.Errorf("%s %w", types.ID(s.id.member), ErrInconsistent)
	}
	return nil
}
