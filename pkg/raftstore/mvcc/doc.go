// Package mvcc is the state machine of the store: keys with versions, leases,
// alarms, and what the commands of the log do to them. It answers what etcd
// 3.7.3 answers.
package mvcc
