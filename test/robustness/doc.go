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
// Nothing here asserts how long something takes. Timeouts only end tests that have failed already.
package robustness
