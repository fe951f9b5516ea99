// Package robustness holds what must be true of a shim process on bad days: kill -9 under load, a full disk, flipped bits, lost files,
// wrong directories, clients that misbehave. Its tests start the real program, built once, on loopback and a data directory of their
// own, and end it by its process ID.
//
//	kill_test.go      clients put, guard, delete, lease, read, compact and watch while the server is killed and started again. What they
//	                  were told is recorded, and afterwards checked by package history: linearizable, strictly serializable, dense,
//	                  nothing acknowledged lost, and what etcd promises of a watch
//	fulldisk_test.go  a small tmpfs becomes full, and has room again
//	damage_test.go    bits flip and files go missing in the directory of a killed server
//	datadir_test.go   directories that cannot be used
//	signals_test.go   SIGTERM under load, SIGSTOP
//	slowwatch_test.go a watcher that does not read
//	abuse_test.go     clients that break the rules
//
// The full disk needs mount(2), and so root.
//
// # Clusters
//
// Files cluster_*_test.go, with the build tag robustness (make robustness runs them, go test ./... does not), have three or five members,
// each on a host of its own: package netns makes network namespaces, whose links can be cut in one direction or both, be late, lose and
// reorder. They need root and the program ip, and fail where namespaces cannot be made.
//
//	cluster_test.go           the cluster: start, kill, stop, freeze and thaw members, cut links and heal them, who leads, do all agree
//	cluster_load_test.go      clients and watchers on all members, and some that take another one for each call and each stream; finish
//	                          judges what they were told, as above, and compares the hashes of all members at the last revision
//	cluster_kill_test.go      kill -9 of the leader, of all; SIGTERM of the leader
//	cluster_partition_test.go the leader cut off, a minority of five, one-way loss, links that are late, lose and reorder
//	cluster_freeze_test.go    SIGSTOP of the leader for longer than an election
//	cluster_restart_test.go   all members in turn
//	cluster_replace_test.go   a member, and then the leader, makes room for a learner that is promoted
//	cluster_lag_test.go       a member that was away for so long that it needs a snapshot, and the watches on it
//	cluster_disk_test.go      the disk of a follower, and of the leader, is full
//	cluster_hang_test.go      the disk of the leader, and of a follower, hangs: a debugger, which is this program, stops threads before fsync
//	cluster_lease_test.go     leases over changes of the leader
//	cluster_discovery_test.go members that find each other by SRV records (cluster_dns_test.go answers them), or by a discovery service
//	cluster_random_test.go    any of this in an order that a seed decides; make robustness LONG=1 goes on with it
//
// With -args -program PATH they run on an etcd, which tells whether a finding is shim's: etcd passes those that ask for no more than it
// promises (it ends by the signal after SIGTERM, and a leader that was frozen revokes leases that others keep alive).
//
// The clients' host reaches all members always, so that they learn what a member without the others says.
//
// Nothing here asserts how long something takes. Timeouts only end tests that have failed already. How long clients waited for the first
// write after a fault is logged.
package robustness
