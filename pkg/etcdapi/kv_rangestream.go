package etcdapi

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

var (
	errStreamSorted   = status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	errStreamFiltered = status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
)

// kvRangeStream is KV.RangeStream: a range in chunks of about MaxRequestBytes,
// all from one View, so writes and compactions that come meanwhile are not seen,
// unless what the compaction has removed has left memory: then the stream fails,
// as etcd's does, which reads each chunk anew. Only the last chunk carries header, more and count.
func (s *Server) kvRangeStream(_ any, stream grpc.ServerStream) error {
	r := new(pb.RangeRequest)
	if err := stream.RecvMsg(r); err != nil {
		return err
	}
	if s.tracer == nil {
		return s.rangeStream(stream, r)
	}
	_, end := s.tracer.start(stream.Context(), "range_streaming", streamAttributes(r))
	err := s.rangeStream(stream, r)
	end(err)
	return err
}

func (s *Server) rangeStream(stream grpc.ServerStream, r *pb.RangeRequest) error {
	if err := mvcc.CheckRange(r); err != nil {
		return toGRPC(err)
	}
	if !mvcc.DefaultOrder(r) {
		return errStreamSorted
	}
	if mvcc.RevisionFilters(r) {
		return errStreamFiltered
	}
	sendPlain(stream.Context())
	if err := s.permitList(stream.Context(), r.GetSerializable(), mayRange(r)); err != nil {
		return err
	}
	g, err := s.lists.acquire(stream.Context(), s.store.View().SizeHint(r))
	if err != nil {
		return toGRPC(err)
	}
	defer func() { g.settle() }()
	now, err := s.keysView(stream.Context(), r.GetSerializable())
	if err != nil {
		return err
	}
	if now, err = s.permitRange(stream.Context(), now, r); err != nil {
		return err
	}
	s.store.CountRanges(1)
	h := s.wireHeader(now.Revision())
	at := s.viewAt(now, mvcc.Revision(r.GetRevision()))
	began := s.opts.Ranges.begin() // etcd measures each chunk
	for page, err := range at.Pages(r, s.opts.MaxRequestBytes) {
		if err != nil {
			s.opts.Ranges.end(began, err)
			return toGRPC(err)
		}
		a, err := encodeStreamChunk(h, page, nil)
		if errors.Is(err, errEvicted) {
			a, err = s.answerFrom(stream.Context(), at, mvcc.Revision(r.GetRevision()), func(rows *coldRows) (*reply, error) {
				return encodeStreamChunk(h, page, rows)
			})
		}
		s.opts.Ranges.end(began, err)
		if err != nil {
			return toGRPC(err)
		}
		if g == nil { // nobody thought that it would be a list
			g = s.lists.force(stream.Context(), a.partBytes())
		}
		g.hold(a)
		if err := stream.SendMsg(a); err != nil {
			return err
		}
		began = s.opts.Ranges.begin()
	}
	return nil
}
