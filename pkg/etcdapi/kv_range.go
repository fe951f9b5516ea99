package etcdapi

import (
	"context"
	"errors"
	"runtime"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvRange is KV.Range.
//
// A list by pages reads every page at the revision of the first. Reading the
// past walks old versions and counts what it passes, so the View that served a
// page which was not the last is kept for a while: the following pages find it
// by its revision and read it as the present.
func (s *Server) kvRange(ctx context.Context, req *rangeRequest) (any, error) {
	r := &req.RangeRequest
	if err := mvcc.CheckRange(r); err != nil {
		return nil, toGRPC(err)
	}
	s.store.CountRanges(1)
	began := time.Since(epoch)
	var a *reply
	var err error
	if len(r.GetRangeEnd()) == 0 {
		a, err = s.rangeReply(ctx, r)
	} else {
		a, err = s.rangeList(ctx, r)
	}
	s.requests.reads.Took(time.Since(epoch)-began, err == nil)
	return a, err
}

// rangeList answers a range of keys once there is room for it.
func (s *Server) rangeList(ctx context.Context, r *pb.RangeRequest) (*reply, error) {
	if err := s.permitList(ctx, r.GetSerializable(), mayRange(r)); err != nil {
		return nil, err
	}
	return s.list(ctx, s.store.View().SizeHint(r), func() (*reply, error) { return s.rangeReply(ctx, r) })
}

// rangeReply answers a range from a View of now.
func (s *Server) rangeReply(ctx context.Context, r *pb.RangeRequest) (*reply, error) {
	for {
		now, err := s.keysView(ctx, r.GetSerializable())
		if err != nil {
			return nil, err
		}
		if now, err = s.permitRange(ctx, now, r); err != nil {
			return nil, err
		}
		began := s.opts.Ranges.begin()
		at := s.viewAt(now, mvcc.Revision(r.GetRevision()))
		res, err := at.Range(r)
		if err == nil && res.More && pagedList(r) && (r.GetRevision() <= 0 || at.Revision() == mvcc.Revision(r.GetRevision())) {
			s.pins.put(at)
		}
		var a *reply
		if err == nil {
			a, err = encodeRange(s.wireHeader(now.Revision()), res, nil)
		}
		if errors.Is(err, errEvicted) {
			a, err = s.answerRange(ctx, now, at, r, res)
		}
		if !errors.Is(err, mvcc.ErrOvertaken) {
			s.opts.Ranges.end(began, err)
			return a, toGRPC(err)
		}
		runtime.Gosched() // the compaction is applied and may not be published yet
	}
}

// list makes an answer that is a list of about so many bytes. It waits until the
// budget has room for them. An answer that comes out as a list though it was not
// thought to be one is made again when its turn has come.
func (s *Server) list(ctx context.Context, bytes int64, answer func() (*reply, error)) (*reply, error) {
	for {
		g, err := s.lists.acquire(ctx, bytes)
		if err != nil {
			return nil, toGRPC(err)
		}
		a, err := answer()
		if err != nil {
			g.settle()
			return nil, err
		}
		if g == nil && a.partBytes() >= listFreeBytes {
			bytes = a.partBytes()
			a.bufs.Free()
			continue
		}
		g.hold(a)
		g.settle()
		return a, nil
	}
}

// earned has the answer to a write borrow what it takes.
func (s *Server) earned(ctx context.Context, a *reply) {
	if n := a.partBytes(); n >= listFreeBytes {
		g := s.lists.force(ctx, n)
		g.hold(a)
		g.settle()
	}
}

// answerRange answers a range of which some has left memory.
func (s *Server) answerRange(ctx context.Context, now, at *mvcc.View, r *pb.RangeRequest, res *mvcc.RangeResult) (*reply, error) {
	h := s.wireHeader(now.Revision())
	return s.answerFrom(ctx, at, mvcc.Revision(r.GetRevision()), func(rows *coldRows) (*reply, error) { return encodeRange(h, res, rows) })
}

// pagedList reports whether r looks like a page of a list: a limited range in
// key order. Looking up one key, or the oldest of many as locks do, is none.
func pagedList(r *pb.RangeRequest) bool {
	return r.GetLimit() > 1 && len(r.GetRangeEnd()) > 0 && mvcc.DefaultOrder(r) && !mvcc.RevisionFilters(r)
}

// viewAt is the View to read revision rev from: a kept one whose present it is,
// or else now itself, which knows what is readable.
func (s *Server) viewAt(now *mvcc.View, rev mvcc.Revision) *mvcc.View {
	if rev <= 0 || rev >= now.Revision() || rev < now.Compacted() {
		return now
	}
	if v := s.pins.get(rev); v != nil {
		return v
	}
	return now
}
