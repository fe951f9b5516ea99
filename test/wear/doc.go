// Command wear measures how many bytes a quiet cluster of Kubernetes has shim and etcd write to their disks in an hour.
//
// Data flow: cluster.go says what the API servers of a cluster of so many nodes write, and when: renewed leases of nodes and leaders,
// statuses of nodes, events, the API server's own leases, a compaction each five minutes; objects.go makes the objects: as Kubernetes encodes them, with
// UIDs, times, owners and managedFields of their own, since both what they take and how much one is like another counts. play.go goes through the hour and makes each
// write on a target, one after the other: server_shim.go opens shim's store in this process, server_etcd.go runs etcd as a process and
// speaks gRPC. What counts is write_bytes of /proc/PID/io: pages and sectors that went to a disk, without the file system's own journal.
//
// # An hour in less than an hour
//
// Nothing is left out but time in which nothing happens. What hangs on the clock is kept as it would be:
//
//   - Each write waits for its answer, so each has a fsync of its own. In 5,000 nodes' real hour some would share one, with both servers.
//   - shim's clock and ticks are the hour's: a checkpoint comes when its age, the log's size or growth have it come.
//   - etcd commits to bbolt each 100 ms, if anything was written. Its clock cannot be set, so it commits by count instead: as many writes
//     as come in 100 ms of the hour, rounded up (--backend-batch-limit). Its other bounds, the snapshot each 10,000 writes and the
//     segments of 64 MB, are counts and stay.
//   - Leases that would expire are revoked when they would; both have the same entry in their logs for it.
//   - At most speedMax times as fast as the clock, so that pauses in real time (between the parts of a removal) stay short.
//
// Goroutines: none of its own. Limits: Linux; one member; no watches and reads, which write nothing.
package main
