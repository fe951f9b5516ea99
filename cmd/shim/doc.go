// Command shim serves the etcd API to kube-apiservers from one process: it is
// what --etcd-servers points at.
//
// # Data flow
//
//	(on Linux, once: execute the program again, with a longer timer slack)
//	flags | ETCD_* | --config-file --> Config --EnsureDefaults, Validate-->
//	    bind the addresses, answer probes --> open the store, hub behind it --> wait for a leader
//	    --> serve --> SIGTERM --> end streams, finish calls --> checkpoint --> die of it
//
// # Files
//
// main.go: the subcommands. serve.go: the life of the process.
//
// Settings: flags.go and flags_table.go have every flag of etcd 3.7.3 in one
// table, with its default by way of the configuration's, or with the reason why
// it means nothing here; values.go the kinds of flags. config.go: the settings,
// what follows from them, and everything that can be wrong with them; cluster.go
// the same for who the members are. env.go, yaml.go, parse.go: where settings
// come from. features.go: the feature gates. profile.go: what --profile sets.
// memory_limit.go: what the process may use. help.go, version.go: what they say.
//
// Wiring: bind.go: addresses; peers.go, join.go: the way to other members, and
// who they are; latehub.go: events to a hub that comes after the store; wiring.go:
// functions between packages that do not know each other; memory.go: the policy
// for the garbage collector; mlock_linux.go: locked memory; slack_linux.go: longer
// naps for Go's monitor thread; signals.go, systemd.go: how a process ends, and
// says that it serves.
//
// What is told: logging.go, logging_output.go and logging_sampler.go write lines
// in the layout of etcd's logger, at its rate; warnings.go what takes long, at
// most ten lines of a kind in a second; quota.go what has grown; tracing.go the
// way of spans to a collector.
//
// Subcommands: check.go, dump.go; snapshot_save.go, snapshot_status.go and
// snapshot_restore.go below snapshot.go.
//
// # Where settings come from
//
// With --config-file (or ETCD_CONFIG_FILE) from that file alone. Otherwise from
// the flags, and for those not given from their variables; the same setting in
// both places is an error, as in etcd, because either could be meant. Setting a
// flag that means nothing here is answered with one warning, a flag that etcd
// does not have ends the process with code 2.
//
// # Goroutines
//
// main serves as the one that waits: for a signal, a failed listener, or the
// end of the store; one more hears the first signal. With tracing the SDK has one
// that sends spans. Beside it run the automatic compaction, if there is one, and
// at the start, until it is done, the counting of the resources for the metrics;
// for moments, while the store grows, a walk that tells what has grown.
// All others belong to the packages; those of the listeners are told at
// etcdapi.Front.
//
// # Limits
//
// A call under way has drainTimeout to finish when the process is told to stop.
package main
