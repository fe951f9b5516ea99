// Package grpcmetrics counts gRPC calls under the names that etcd's dashboards
// know: those of go-grpc-prometheus, and etcd's own counts of client versions and
// of how long requests take.
//
// # Data flow
//
// A server calls InitializeMetrics once all services are registered. That makes
// the counters of every method, each with all codes, so that a series exists at
// zero before the first call and nothing is looked up by label while serving.
// The interceptors of the server then ask for the Method of a call and count. What
// is measured as a Request is the server's choice.
//
// # Goroutines
//
// None of its own. The table of methods is written by InitializeMetrics, before
// serving, and only read afterwards; counters are atomic.
//
// # Limits
//
// The number of series is fixed by the services, apart from client versions:
// the first 32 distinct ones are counted by name and the rest as "other".
package grpcmetrics
