// Package member starts and ends the servers that tests and benchmarks run as
// processes of their own, and reads from the kernel what they use.
//
// Data flow: New gives a member a data dir and ports of the loopback; Etcd
// gives it etcd's flags, which are shim's too. Launch starts the process, whose
// output is appended to a log beside the data dir; Connect waits for it to
// listen and dials. End sends a signal and waits for the process; Launch may
// follow, on the same data. proc.go reads /proc: CPU, memory, disk writes.
//
// Processes: a member dies with the process that launched it, by the kernel's
// parent-death signal, and is ended by its ID alone.
//
// Goroutines: none. A member is used by one at a time, but for PID and what
// reads /proc.
//
// Limits: Linux only.
package member
