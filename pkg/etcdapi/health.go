package etcdapi

import (
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// newHealthService answers grpc.health.v1.Health: the service "" is SERVING for
// as long as the server runs, as in etcd. Defragmenting does not interrupt it.
func newHealthService() *grpchealth.Server {
	h := grpchealth.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	return h
}
