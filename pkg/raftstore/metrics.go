package raftstore

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// metrics are the numbers of a store under etcd's names.
type metrics struct {
	hasLeader, isLeader                                            prometheus.Gauge
	committedIndex, appliedIndex, proposalsPending                 prometheus.Gauge
	leaderChanges, failed, leaseExpired, leaseGrants, leaseRevokes prometheus.Counter
	leaseRenews, ranges, puts, deletes, txns                       prometheus.Counter
	slowApplies, readsFailed, readsSlow, heartbeatFailures         prometheus.Counter
	defragFreed, defragCopied                                      prometheus.Counter
	defragActive, walWritten, compactLast                          prometheus.Gauge
	compactedRows                                                  prometheus.Counter
	walWrite, hash, compactPause, compactTotal                     prometheus.Histogram
	clusterVersion                                                 *prometheus.GaugeVec
	compactBegan                                                   time.Time // owned by who applies
	leaseTTL                                                       prometheus.Histogram
	fsync, commit, snapshot, defrag, backupDuration                prometheus.Histogram
	dbSize, dbInUse, quota, revision, compacted, keys              prometheus.Gauge
	walBytes, quotaUsed                                            prometheus.Gauge
	checkpoints, checkpointFailures                                prometheus.Counter
	spaceLow                                                       prometheus.Gauge
	isLearner, authRevision                                        prometheus.Gauge
	promoteSuccesses                                               prometheus.Counter
	promoteFailures                                                *prometheus.CounterVec
	historyResident, historySpilled, valuesResident, valuesEvicted prometheus.Gauge
	evictions                                                      prometheus.Counter
	evicted                                                        uint64 // what evictions counts; owned by who applies
	applies                                                        *applyTimes
}

func newMetrics(quotaBytes int64) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	seconds := func(name, help string, start float64, count int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2, count)})
	}
	m := &metrics{applies: newApplyTimes(),
		hasLeader:        gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not."),
		isLeader:         gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise."),
		leaderChanges:    counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen."),
		committedIndex:   gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed."),
		appliedIndex:     gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied."),
		proposalsPending: gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
		failed:           counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
		leaseExpired:     counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases."),
		leaseGrants:      counter("etcd_debugging_lease_granted_total", "The total number of granted leases."),
		leaseRevokes:     counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases."),
		leaseRenews:      counter("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader."),
		leaseTTL:         seconds("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", 1, 24),
		ranges:           counter("etcd_mvcc_range_total", "Total number of ranges seen by this member."),
		puts:             counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
		deletes:          counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member."),
		txns:             counter("etcd_mvcc_txn_total", "Total number of txns seen by this member."),
		slowApplies:      counter("etcd_server_slow_apply_total", "The total number of slow apply requests (likely overloaded from slow disk)."),
		readsFailed:      counter("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen."),
		readsSlow:        counter("etcd_server_slow_read_indexes_total", "The total number of pending read indexes not in sync with leader's or timed out read index requests."),
		// This stays 0: heartbeats have a lane of their own, and wait neither for the disk nor for a batch.
		heartbeatFailures: counter("etcd_server_heartbeat_send_failures_total", "The total number of leader heartbeat send failures (likely overloaded from slow disk)."),
		defragActive:      gauge("etcd_disk_defrag_inflight", "Whether or not defrag is active on the member. 1 means active, 0 means not."),
		walWritten:        gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL."),
		walWrite:          seconds("etcd_disk_wal_write_duration_seconds", "The latency distributions of write called by WAL.", 0.001, 14),
		hash:              seconds("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation.", 0.01, 15),
		compactPause:      seconds("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Bucketed histogram of db compaction pause duration.", 1, 13),
		compactTotal:      seconds("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Bucketed histogram of db compaction total duration.", 100, 14),
		compactLast:       gauge("etcd_debugging_mvcc_db_compaction_last", "The unix time of the last db compaction. Resets to 0 on start."),
		compactedRows:     counter("etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted."),
		fsync:             seconds("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", 0.001, 14),
		commit:            seconds("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", 0.001, 14),
		snapshot:          seconds("etcd_debugging_snap_save_total_duration_seconds", "The total latency distributions of save called by snapshot.", 0.001, 14),
		defrag:            seconds("etcd_disk_backend_defrag_duration_seconds", "The latency distribution of backend defragmentation.", 0.1, 13),
		backupDuration:    seconds("etcd_disk_backend_snapshot_duration_seconds", "The latency distribution of backend snapshots.", 0.01, 17),
		dbSize:            gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes."),
		dbInUse:           gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes."),
		quota:             gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes."),
		revision:          gauge("etcd_debugging_mvcc_current_revision", "The current revision of store."),
		compacted:         gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store."),
		keys:              gauge("etcd_debugging_mvcc_keys_total", "Total number of keys."),
		quotaUsed:         gauge("shim_quota_used_bytes", "Bytes of live keys and leases, which the quota counts."),
		walBytes:          gauge("shim_wal_size_bytes", "Bytes of the log that are needed to start again."),
		isLearner:         gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise."),
		promoteSuccesses:  counter("etcd_server_learner_promote_successes", "The total number of successful learner promotions while this member is leader."),
		defragFreed:       counter("shim_defrag_freed_bytes_total", "Bytes that defragmentations of the database gave back to the disk."),
		defragCopied:      counter("shim_defrag_copied_bytes_total", "Bytes of rows that defragmentations of the database have copied."),
		checkpoints:       counter("shim_checkpoints_total", "Checkpoints written to bbolt."),
		spaceLow:          gauge("shim_disk_full", "Whether the disk of the log has no room for another segment, so that what grows is refused. 1 means full, 0 means not."),
	}
	m.state(gauge, counter)
	m.quota.Set(float64(quotaBytes))
	m.clusterVersion = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "etcd_cluster_version",
		Help: "Which version is running. 1 for 'cluster_version' label with current cluster version"}, []string{"cluster_version"})
	m.promoteFailures = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_server_learner_promote_failures",
		Help: "The total number of failed learner promotions (likely learner not ready) while this member is leader."}, []string{"Reason"})
	return m
}

func newApplyTimes() *applyTimes {
	return &applyTimes{desc: prometheus.NewDesc("etcd_server_apply_duration_seconds", "The latency distributions of v2 apply called by backend.",
		[]string{"version", "op", "success"}, nil)}
}

// state makes the metrics of users and roles, and of what is in memory.
func (m *metrics) state(gauge func(name, help string) prometheus.Gauge, counter func(name, help string) prometheus.Counter) {
	m.authRevision = gauge("etcd_debugging_auth_revision", "The current revision of auth store.")
	m.checkpointFailures = counter("shim_checkpoint_failures_total", "Checkpoints that failed, as on a full disk; each is tried again.")
	m.historyResident = gauge("shim_history_resident_bytes", "Bytes of superseded versions in memory.")
	m.historySpilled = gauge("shim_history_spilled_bytes", "Bytes of superseded versions in the database only, as there were more than --history-bytes or --memory-limit leave room for.")
	m.valuesResident = gauge("shim_values_resident_bytes", "Bytes of the newest versions of the live keys in memory.")
	m.valuesEvicted = gauge("shim_values_evicted_bytes", "Bytes of the newest versions of the live keys in the database only.")
	m.evictions = counter("shim_evictions_total", "Versions whose values have left memory.")
}

// register gives them to a registry, if there is one.
func (m *metrics) register(r prometheus.Registerer, id identity) error {
	if r == nil {
		return nil
	}
	serverID := prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_server_id", Help: "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
		ConstLabels: prometheus.Labels{"server_id": fmt.Sprintf("%x", id.member)}})
	serverID.Set(1)
	for _, c := range []prometheus.Collector{serverID, m.clusterVersion, m.authRevision, m.isLearner, m.promoteSuccesses, m.promoteFailures, m.hasLeader, m.isLeader, m.leaderChanges, m.committedIndex, m.appliedIndex,
		m.proposalsPending, m.failed, m.leaseExpired, m.leaseGrants, m.leaseRevokes, m.leaseRenews, m.leaseTTL, m.ranges, m.puts, m.deletes, m.txns,
		m.fsync, m.commit, m.snapshot, m.defrag, m.backupDuration, m.dbSize, m.dbInUse, m.quota, m.revision, m.compacted, m.keys,
		m.walBytes, m.quotaUsed, m.checkpoints, m.checkpointFailures, m.spaceLow, m.slowApplies, m.readsFailed, m.readsSlow, m.heartbeatFailures, m.defragActive, m.walWritten, m.walWrite,
		m.defragFreed, m.defragCopied, m.hash, m.compactPause, m.compactTotal, m.compactLast, m.compactedRows,
		m.historyResident, m.historySpilled, m.valuesResident, m.valuesEvicted, m.evictions, m.applies} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// clusterVersionIs takes a version as "3.7.0", or "" for none; etcd's label is "3.7".
func (m *metrics) clusterVersionIs(v string) {
	m.clusterVersion.Reset()
	if i := strings.LastIndexByte(v, '.'); i > 0 {
		m.clusterVersion.WithLabelValues(v[:i]).Set(1)
	}
}

func (m *metrics) leaderChanged(leader uint64, self bool) {
	m.hasLeader.Set(boolGauge(leader != 0))
	m.isLeader.Set(boolGauge(self))
	if leader != 0 {
		m.leaderChanges.Inc()
	}
}

func (m *metrics) learnerIs(learner bool) { m.isLearner.Set(boolGauge(learner)) }

// promoted counts a promotion at the leader.
func (m *metrics) promoted(err error) {
	if err == nil {
		m.promoteSuccesses.Inc()
	} else {
		m.promoteFailures.WithLabelValues(err.Error()).Inc()
	}
}

func boolGauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) published(v *mvcc.View) {
	m.appliedIndex.Set(float64(v.Index()))
	m.revision.Set(float64(v.Revision()))
	m.authRevision.Set(float64(v.Auth().Revision()))
	m.compacted.Set(float64(v.Compacted()))
	m.keys.Set(float64(v.KeyCount()))
	m.quotaUsed.Set(float64(v.QuotaSize()))
	r := v.Residency()
	m.historyResident.Set(float64(r.History))
	m.historySpilled.Set(float64(r.HistoryEvicted))
	m.valuesResident.Set(float64(r.Live))
	m.valuesEvicted.Set(float64(r.LiveEvicted))
	if r.Evictions > m.evicted {
		m.evictions.Add(float64(r.Evictions - m.evicted))
	}
	m.evicted = r.Evictions
}

// housekept is what is set every so often.
func (m *metrics) housekept(pending int, committed uint64, walBytes int64) {
	m.proposalsPending.Set(float64(pending))
	m.committedIndex.Set(float64(committed))
	m.walBytes.Set(float64(walBytes))
}

func (m *metrics) applied(r *pb.InternalRaftRequest, res mvcc.Result) {
	if res.Err != nil {
		return
	}
	switch {
	case r.Put != nil:
		m.count(previous(r.Put), 1, 0)
	case r.DeleteRange != nil:
		m.count(boolInt(r.DeleteRange.GetPrevKv()), 0, 1)
	case r.Txn != nil:
		m.txn(r.Txn, res.Response.(*mvcc.TxnResult))
	case r.Compaction != nil:
		m.count(1, 0, 0) // etcd reads a key to learn the revision
		m.compactBegan = time.Now()
	case r.LeaseGrant != nil:
		m.leaseGrants.Inc()
		m.leaseTTL.Observe(float64(r.LeaseGrant.GetTTL()))
	case r.LeaseRevoke != nil:
		m.leaseRevokes.Inc()
		m.count(0, 0, len(res.Events))
	}
}

// count counts as etcd does: operations, wherever they come from, and as a txn what has more than one.
func (m *metrics) count(ranges, puts, deletes int) {
	m.ranges.Add(float64(ranges))
	m.puts.Add(float64(puts))
	m.deletes.Add(float64(deletes))
	if ranges+puts+deletes > 1 {
		m.txns.Inc()
	}
}

// txn counts the operations that ran and, apart from them as in etcd, the compares, each of which is a range there.
func (m *metrics) txn(r *pb.TxnRequest, res *mvcc.TxnResult) {
	var n operations
	n.add(r, res)
	m.count(n.compares, 0, 0)
	m.count(n.ranges, n.puts, n.deletes)
}

type operations struct{ compares, ranges, puts, deletes int }

func (n *operations) add(r *pb.TxnRequest, res *mvcc.TxnResult) {
	ops := r.GetSuccess()
	switch {
	case res.Succeeded:
		n.compares += len(r.GetCompare())
	default:
		ops = r.GetFailure()
		n.compares++ // at least: the rest is not looked at once one fails
	}
	for i := range res.Ops {
		switch op := &res.Ops[i]; {
		case op.Range != nil:
			n.ranges++
		case op.Put != nil:
			n.puts++
			n.ranges += previous(ops[i].GetRequestPut())
			n.compares += previous(ops[i].GetRequestPut()) // looked at with the compares, too
		case op.Delete != nil:
			n.deletes++
			n.ranges += boolInt(ops[i].GetRequestDeleteRange().GetPrevKv())
		case op.Txn != nil:
			n.add(ops[i].GetRequestTxn(), op.Txn)
		}
	}
}

// previous is 1 if a put looks at the version before it, which etcd counts as a range.
func previous(r *pb.PutRequest) int {
	return boolInt(r.GetPrevKv() || r.GetIgnoreValue() || r.GetIgnoreLease())
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// CountRanges counts what one call read from a View: n ranges, compares among them. It is for the callers of Range and Txn of a View,
// as a View counts nothing.
func (s *Store) CountRanges(n int) { s.metrics.count(n, 0, 0) }

// compactedSlice is called after each slice of a compaction; writes wait while one is removed.
func (m *metrics) compactedSlice(took time.Duration, done bool) {
	m.compactPause.Observe(float64(took) / float64(time.Millisecond))
	if done && !m.compactBegan.IsZero() {
		m.compactTotal.Observe(float64(time.Since(m.compactBegan)) / float64(time.Millisecond))
		m.compactLast.SetToCurrentTime()
		m.compactBegan = time.Time{}
	}
}

// defragmenting is called when one begins; what it gives, when it ended.
func (m *metrics) defragmenting() (ended func()) {
	m.defragActive.Set(1)
	return func() { m.defragActive.Set(0) }
}

// defragmented is called when one has succeeded.
func (m *metrics) defragmented(took time.Duration, freed int64) {
	m.defrag.Observe(took.Seconds())
	m.defragFreed.Add(float64(max(freed, 0)))
}

func (m *metrics) walWrote(bytes int, took time.Duration) {
	m.walWritten.Add(float64(bytes))
	m.walWrite.Observe(took.Seconds())
}
func (m *metrics) readTimedOut()             { m.readsSlow.Inc() }
func (m *metrics) readFailed()               { m.readsFailed.Inc() }
func (m *metrics) hashed(took time.Duration) { m.hash.Observe(took.Seconds()) }
func (m *metrics) rowsCompacted(n int)       { m.compactedRows.Add(float64(n)) }

func (m *metrics) proposalsFailed(n int)        { m.failed.Add(float64(n)) }
func (m *metrics) leasesExpired(n int)          { m.leaseExpired.Add(float64(n)) }
func (m *metrics) leaseRenewed()                { m.leaseRenews.Inc() }
func (m *metrics) fsynced(took time.Duration)   { m.fsync.Observe(took.Seconds()) }
func (m *metrics) committed(took time.Duration) { m.commit.Observe(took.Seconds()) }
func (m *metrics) defragmentCopied(bytes int64) { m.defragCopied.Add(float64(bytes)) }
func (m *metrics) backedUp(took time.Duration)  { m.backupDuration.Observe(took.Seconds()) }
func (m *metrics) database(size, inUse int64) {
	m.dbSize.Set(float64(size))
	m.dbInUse.Set(float64(inUse))
}

// setSpaceLow notes whether the disk is full.
func (m *metrics) setSpaceLow(low bool) { m.spaceLow.Set(boolGauge(low)) }

func (m *metrics) checkpointed(took time.Duration) {
	m.checkpoints.Inc()
	m.snapshot.Observe(took.Seconds())
}
