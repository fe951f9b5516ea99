// Package membership is who belongs to the cluster: members, their URLs and names, learners, IDs that are gone for good, and
// the cluster's version. raftstore feeds it, where it applies, committed configuration changes and attribute updates in log
// order and publishes the result. That part is pure: it does no I/O, takes no lock and reads no clock.
//
// Bootstrap and Join say which cluster a member starts in for the first time, from its flags and, for Join, from a member that runs.
// They are the part that may wait: URLs that are written differently are compared by their addresses, through a Resolver.
//
// MayAdd, MayRemove, MayPromote and LearnerReady are asked before a change is proposed (--strict-reconfig-check); Apply decides
// again, when the change is committed. ForceNewCluster is the changes that leave one member of many.
//
// A Cluster is immutable. Apply... methods return a new one that shares what did not change, so a reader may keep any Cluster
// it was given, and equal logs give equal clusters on all members.
//
// # Identity
//
// Member and cluster IDs are computed as etcd computes them, so that a member started with the same flags has the same IDs:
//
//	member  = first 8 bytes, big endian, of sha1(sorted peer URLs joined + token [+ unix seconds as decimal text])
//	cluster = first 8 bytes, big endian, of sha1(member IDs ascending, 8 bytes big endian each)
//
// The seconds are part of the ID of a member that is added to a running cluster only.
//
// # Format
//
// Members are JSON in the log (context of a configuration change) and in bbolt, with etcd's field names:
//
//	{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}
//
// # Invariants
//
//  1. An ID that was removed never comes back.
//  2. No two members share a peer URL.
//  3. A change that is refused leaves the Cluster as it was; whether it is refused depends on the Cluster and the change alone.
//
// # Limits
//
// One learner unless the change says more; 30 s to resolve names, asked again each second.
package membership
