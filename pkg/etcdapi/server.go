package etcdapi

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kubeshim/shim/pkg/auth/password"
	"github.com/kubeshim/shim/pkg/etcdapi/grpcmetrics"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// Server answers etcd's gRPC services from a store and its watch hub. It keeps
// no state of its own but the Views of lists under way; any number of calls may
// run at once.
type Server struct {
	opts      Options
	store     *raftstore.Store
	hub       *watchcache.Hub
	header    headerInfo
	pins      *viewPins
	lists     *listBudget
	passwords *password.Hasher
	metrics   *grpcmetrics.Metrics
	requests  requestMetrics
	tracer    *tracer       // nil: nothing is traced
	slowMin   time.Duration // calls that took longer are looked at
}

// New returns a server for an open store. It starts nothing. The options must
// be valid; zero fields get their defaults.
func New(opts Options, store *raftstore.Store, hub *watchcache.Hub) *Server {
	opts.EnsureDefaults()
	metrics := grpcmetrics.New(grpcmetrics.Options{HandlingTime: opts.ExtensiveMetrics})
	return &Server{
		opts:      opts,
		store:     store,
		hub:       hub,
		header:    newHeaderInfo(store.ClusterID(), store.MemberID()),
		pins:      newViewPins(),
		lists:     newListBudget(opts.ListBytes),
		passwords: password.NewHasher(opts.BcryptCost),
		tracer:    newTracer(opts.TracerProvider),
		slowMin:   opts.slowMin(),
		metrics:   metrics,
		requests:  newRequestMetrics(metrics),
	}
}

// GRPCMetrics are the counters of the calls served; the owner of a registry
// registers them.
func (s *Server) GRPCMetrics() *grpcmetrics.Metrics { return s.metrics }

// ListStats are the figures of the lists that are under way, for MetricsEnv.
func (s *Server) ListStats() ListStats { return s.lists.Stats() }

// Register adds all services to a gRPC server made with ServerOptions.
func (s *Server) Register(g *grpc.Server) {
	g.RegisterService(s.kvService(), s)
	s.registerWatch(g)
	if leases := (leaseServer{Server: s}); s.tracer != nil {
		pb.RegisterLeaseServer(g, tracedLeases{leases})
	} else {
		pb.RegisterLeaseServer(g, leases)
	}
	pb.RegisterMaintenanceServer(g, maintenanceServer{Server: s})
	pb.RegisterClusterServer(g, clusterServer{Server: s})
	pb.RegisterAuthServer(g, authServer{Server: s})
	v3lockpb.RegisterLockServer(g, lockServer{Server: s})
	v3electionpb.RegisterElectionServer(g, electionServer{Server: s})
	healthpb.RegisterHealthServer(g, newHealthService())
	s.metrics.InitializeMetrics(g)
}

// wireHeader is the header of an answer at rev, in the current term.
func (s *Server) wireHeader(rev mvcc.Revision) wireHeader {
	return wireHeader{prefix: s.header.prefix, rev: rev, term: s.term()}
}

// headerAt is the header of an answer at rev as a message.
func (s *Server) headerAt(rev mvcc.Revision) *pb.ResponseHeader {
	return s.header.message(rev, s.term())
}

// headerNow is the header of an answer at the current revision.
func (s *Server) headerNow() *pb.ResponseHeader {
	v := s.store.View()
	return s.header.message(v.Revision(), v.Term())
}

// term is the raft term of the last applied entry. A leader applies an entry of
// its own at the start of its term, before it serves.
func (s *Server) term() uint64 { return s.store.View().Term() }
