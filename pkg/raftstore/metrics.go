package raftstore

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// metrics are the numbers of a store under etcd's names.
type metrics struct {
	hasLeader, isLeader                                            prometheus.Gauge
	committedIndex, appliedIndex, proposalsPending                 prometheus.Gauge
	leaderChanges, failed, leaseExpired, leaseGrants, leaseRevokes prometheus.Counter
	leaseRenews, puts, deletes, txns                               prometheus.Counter
	leaseTTL                                                       prometheus.Histogram
	fsync, commit, snapshot, defrag, backupDuration                prometheus.Histogram
	dbSize, dbInUse, quota, revision, compacted, keys              prometheus.Gauge
	walBytes                                                       prometheus.Gauge
	checkpoints                                                    prometheus.Counter
}

func newMetrics(r prometheus.Registerer, id identity, quotaBytes int64) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	seconds := func(name, help string, start float64, count int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2, count)})
	}
	m := &metrics{
		hasLeader:        gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not."),
		isLeader:         gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise."),
		leaderChanges:    counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen."),
		committedIndex:   gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed."),
		appliedIndex:     gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied."),
		proposalsPending: gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
		failed:           counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
		leaseExpired:     counter("etcd_server_lease_expired_total", "The total number of expired leases."),
		leaseGrants:      counter("etcd_debugging_lease_granted_total", "The total number of granted leases."),
		leaseRevokes:     counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases."),
		leaseRenews:      counter("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader."),
		leaseTTL:         seconds("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", 1, 24),
		puts:             counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
		deletes:          counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member."),
		txns:             counter("etcd_mvcc_txn_total", "Total number of txns seen by this member."),
		fsync:            seconds("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", 0.001, 14),
		commit:           seconds("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", 0.001, 14),
		snapshot:         seconds("etcd_debugging_snap_save_total_duration_seconds", "The total latency distributions of save called by snapshot.", 0.001, 14),
		defrag:           seconds("etcd_disk_backend_defrag_duration_seconds", "The latency distribution of backend defragmentation.", 0.1, 13),
		backupDuration:   seconds("etcd_disk_backend_snapshot_duration_seconds", "The latency distribution of backend snapshots.", 0.01, 17),
		dbSize:           gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes."),
		dbInUse:          gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes."),
		quota:            gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes."),
		revision:         gauge("etcd_debugging_mvcc_current_revision", "The current revision of store."),
		compacted:        gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store."),
		keys:             gauge("etcd_debugging_mvcc_keys_total", "Total number of keys."),
		walBytes:         gauge("shim_wal_size_bytes", "Bytes of the log that are needed to start again."),
		checkpoints:      counter("shim_checkpoints_total", "Checkpoints written to bbolt."),
	}
	m.quota.Set(float64(quotaBytes))
	if r == nil {
		return m, nil
	}
	serverID := prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_server_id", Help: "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
		ConstLabels: prometheus.Labels{"server_id": fmt.Sprintf("%x", id.member)}})
	serverID.Set(1)
	clusterVersion := prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_cluster_version", Help: "Which version is running. 1 for 'cluster_version' label with current cluster version",
		ConstLabels: prometheus.Labels{"cluster_version": backend.StorageVersion[:3]}})
	clusterVersion.Set(1)
	learner := gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.")
	for _, c := range []prometheus.Collector{serverID, clusterVersion, learner, m.hasLeader, m.isLeader, m.leaderChanges, m.committedIndex, m.appliedIndex,
		m.proposalsPending, m.failed, m.leaseExpired, m.leaseGrants, m.leaseRevokes, m.leaseRenews, m.leaseTTL, m.puts, m.deletes, m.txns,
		m.fsync, m.commit, m.snapshot, m.defrag, m.backupDuration, m.dbSize, m.dbInUse, m.quota, m.revision, m.compacted, m.keys,
		m.walBytes, m.checkpoints} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) leaderChanged(leader uint64, self bool) {
	m.hasLeader.Set(boolGauge(leader != 0))
	m.isLeader.Set(boolGauge(self))
	if leader != 0 {
		m.leaderChanges.Inc()
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
	m.compacted.Set(float64(v.Compacted()))
	m.keys.Set(float64(v.KeyCount()))
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
		m.puts.Inc()
	case r.DeleteRange != nil:
		m.deletes.Inc()
	case r.Txn != nil:
		m.txns.Inc()
	case r.LeaseGrant != nil:
		m.leaseGrants.Inc()
		m.leaseTTL.Observe(float64(r.LeaseGrant.GetTTL()))
	case r.LeaseRevoke != nil:
		m.leaseRevokes.Inc()
	}
}

func (m *metrics) proposalsFailed(n int)           { m.failed.Add(float64(n)) }
func (m *metrics) leasesExpired(n int)             { m.leaseExpired.Add(float64(n)) }
func (m *metrics) leaseRenewed()                   { m.leaseRenews.Inc() }
func (m *metrics) fsynced(took time.Duration)      { m.fsync.Observe(took.Seconds()) }
func (m *metrics) committed(took time.Duration)    { m.commit.Observe(took.Seconds()) }
func (m *metrics) defragmented(took time.Duration) { m.defrag.Observe(took.Seconds()) }
func (m *metrics) backedUp(took time.Duration)     { m.backupDuration.Observe(took.Seconds()) }
func (m *metrics) database(size, inUse int64) {
	m.dbSize.Set(float64(size))
	m.dbInUse.Set(float64(inUse))
}

func (m *metrics) checkpointed(took time.Duration) {
	m.checkpoints.Inc()
	m.snapshot.Observe(took.Seconds())
}
