package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/attribute"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// leaseServer answers etcdserverpb.Lease.
type leaseServer struct {
	*Server
	pb.UnsafeLeaseServer
}

// LeaseGrant creates a lease. An ID of zero lets the server choose one.
func (s leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	r.ID = chooseLeaseID(r.ID)
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	w := write{raft: pb.InternalRaftRequest{LeaseGrant: r}}
	if err := s.propose(ctx, mvcc.KindLeaseGrant, &w, nil); err != nil {
		return nil, err
	}
	granted := w.res.Response.(*mvcc.LeaseGrantResult)
	return &pb.LeaseGrantResponse{Header: s.headerAt(w.res.Revision), ID: int64(granted.ID), TTL: granted.TTL}, nil
}

// chooseLeaseID is id, or one at random for 0.
func chooseLeaseID(id int64) int64 {
	if id == 0 {
		return 1 + rand.Int64N(math.MaxInt64)
	}
	return id
}

// LeaseRevoke ends a lease and deletes its keys, in one revision.
func (s leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	w := write{raft: pb.InternalRaftRequest{LeaseRevoke: r}}
	if err := s.propose(ctx, mvcc.KindLeaseRevoke, &w, nil); err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: s.headerAt(w.res.Revision)}, nil
}

// LeaseKeepAlive renews the lease of each message, one after the other. A lease
// that is not there is answered with TTL 0.
func (s leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ended := make(chan error, 1)
	go func() { ended <- s.keepAlive(stream) }()
	select {
	case err := <-ended:
		return err
	case <-stream.Context().Done():
		return context.Cause(stream.Context()) // "no leader", if that is why it ended
	}
}

// keepAlive serves one stream. It ends with the stream: once the handler has
// returned, Recv and Send fail.
func (s leaseServer) keepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The header comes first: at its revision the lease was still there. Taken
		// after the renewal it could name a revision in which a revoke has already
		// deleted the keys.
		resp := &pb.LeaseKeepAliveResponse{Header: s.headerNow(), ID: r.ID}
		if err := s.permitLease(stream.Context(), mvcc.LeaseID(r.ID), (*auth.State).CheckPut); err != nil {
			return err
		}
		ttl, err := s.leaseRenew(stream.Context(), r.ID)
		switch {
		case errors.Is(err, mvcc.ErrLeaseNotFound):
			ttl = 0
		case err != nil:
			return toGRPC(err)
		}
		resp.TTL = ttl
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (s leaseServer) leaseRenew(ctx context.Context, id int64) (ttl int64, err error) {
	if s.tracer == nil {
		return s.store.LeaseRenew(ctx, mvcc.LeaseID(id))
	}
	ctx, end := s.tracer.start(ctx, "lease_renew", []attribute.KeyValue{attribute.Int64("id", id)})
	ttl, err = s.store.LeaseRenew(ctx, mvcc.LeaseID(id))
	end(err)
	return ttl, err
}

// LeaseTimeToLive tells what is left of a lease, -1 if there is no such lease.
func (s leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	if r.Keys {
		if err := s.permitLease(ctx, mvcc.LeaseID(r.ID), readable); err != nil {
			return nil, err
		}
	}
	left, err := s.store.LeaseTimeToLive(ctx, mvcc.LeaseID(r.ID), r.Keys)
	resp := &pb.LeaseTimeToLiveResponse{Header: s.headerNow(), ID: r.ID, TTL: -1}
	switch {
	case errors.Is(err, mvcc.ErrLeaseNotFound):
		return resp, nil
	case err != nil:
		return nil, toGRPC(err)
	}
	resp.TTL, resp.GrantedTTL, resp.Keys = int64(left.Left/time.Second), left.Granted, left.Keys
	return resp, nil
}

// LeaseLeases lists all leases, the one that expires first at the front. As in
// etcd it is answered from this member's own state.
func (s leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	v := s.store.View()
	if v.Auth().Enabled() {
		var err error
		if v, err = s.permitLeases(ctx, v); err != nil {
			return nil, err
		}
	}
	type entry struct {
		id   mvcc.LeaseID
		left time.Duration
	}
	var entries []entry
	for _, l := range v.Leases() {
		left, _ := s.store.LeaseRemaining(l.ID)
		entries = append(entries, entry{l.ID, left})
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.left, b.left) })
	resp := &pb.LeaseLeasesResponse{Header: s.headerAt(v.Revision()), Leases: make([]*pb.LeaseStatus, len(entries))}
	for i, e := range entries {
		resp.Leases[i] = &pb.LeaseStatus{ID: int64(e.id)}
	}
	return resp, nil
}

// keyCheck is a check of one key.
type keyCheck func(*auth.State, auth.Info, []byte) error

func readable(st *auth.State, i auth.Info, key []byte) error { return st.CheckRange(i, key, nil) }

// permitLease refuses who may not do something with all keys of a lease. The
// keys are those of a linearizable View: the answer is the leader's.
func (s leaseServer) permitLease(ctx context.Context, id mvcc.LeaseID, check keyCheck) error {
	if !s.store.View().Auth().Enabled() {
		return nil
	}
	v, err := s.readView(ctx, false)
	if err != nil {
		return err
	}
	c, err := s.identify(ctx, v)
	if err == nil {
		err = c.permitKeys(check, id)
	}
	return toGRPC(err)
}

// permitLeases is permitLease for reading all keys of all leases of v, or of a
// later View, which is answered.
func (s leaseServer) permitLeases(ctx context.Context, v *mvcc.View) (*mvcc.View, error) {
	c, err := s.identify(ctx, v)
	if err == nil {
		var ids []mvcc.LeaseID
		for _, l := range c.view.Leases() {
			ids = append(ids, l.ID)
		}
		err = c.permitKeys(readable, ids...)
	}
	return c.view, toGRPC(err)
}

// permitKeys checks the keys of leases, unless root asks.
func (c caller) permitKeys(check keyCheck, ids ...mvcc.LeaseID) error {
	st := c.view.Auth()
	if st.CheckAdmin(c.Info) == nil {
		return nil
	}
	if c.Info == (auth.Info{}) {
		return auth.ErrUserEmpty
	}
	for _, id := range ids {
		for _, key := range c.view.LeaseKeys(id) {
			if err := check(st, c.Info, key); err != nil {
				return err
			}
		}
	}
	return nil
}
