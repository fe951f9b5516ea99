package main

import (
	"context"
	"errors"
	"log/slog"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// httpOptions connects the HTTP endpoints to the store.
func (m *member) httpOptions() etcdapi.HTTPOptions {
	return etcdapi.HTTPOptions{
		Env: etcdapi.HTTPEnv{
			Read:           m.read,
			Alarms:         func() []*pb.AlarmMember { return m.store.View().Alarms() },
			HasLeader:      m.store.HasLeader,
			IsLearner:      func() bool { return m.store.Status().IsLearner },
			ClusterVersion: func() string { return m.store.Status().ClusterVersion },
			StorageVersion: func() string { return m.store.Status().StorageVersion },
			ClusterID:      m.store.ClusterID,
			Members:        m.members,
		},
		Gatherer:    m.metrics,
		Health:      m.health,
		Log:         m.log,
		Pprof:       m.c.EnablePprof || m.c.LogLevel == "debug",
		RefuseNames: func() bool { return m.c.ClientTLS.ClientCertAuth && m.store.View().Auth().Enabled() },

		CORS:  m.c.CORS,
		Hosts: m.c.HostWhitelist,
	}
}

// read is the probe behind the health checks.
func (m *member) read(ctx context.Context, serializable bool) error {
	v := m.store.View()
	if !serializable {
		var err error
		if v, err = m.store.ReadView(ctx); err != nil {
			return err
		}
	}
	m.store.CountRanges(1)
	_, err := v.Range(&pb.RangeRequest{Key: []byte("health"), KeysOnly: true, Limit: 1})
	return err
}

func (m *member) members() []etcdapi.HTTPMember {
	var all []etcdapi.HTTPMember
	for _, x := range m.store.Members() {
		all = append(all, etcdapi.HTTPMember{ID: uint64(x.ID), PeerURLs: x.PeerURLs, IsLearner: x.IsLearner, Name: x.Name, ClientURLs: x.ClientURLs})
	}
	return all
}

// compact proposes a compaction, for the automatic one.
func (m *member) compact(ctx context.Context, rev mvcc.Revision) error {
	req := &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(rev)}}
	res, err := m.store.Propose(ctx, raftstore.Command{Kind: mvcc.KindCompaction, Request: req})
	return errors.Join(err, res.Err)
}

// logCompaction brings an automatic compaction into the log.
func (m *member) logCompaction(e compact.Event) {
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelWarn
	}
	m.log.Log(bg, level, e.String())
}

// logEvent brings the store's events into the log.
func logEvent(log *slog.Logger, e raftstore.Event) {
	level := slog.LevelInfo
	switch x := e.(type) {
	case raftstore.CheckpointFailed, raftstore.DefragmentFailed, raftstore.DefragmentPutOff, raftstore.RaftWarning, raftstore.AlarmChanged, raftstore.QuotaNear,
		raftstore.DiskStalled, raftstore.HashMismatch, raftstore.SelfRemoved, raftstore.ClusterForced:
		level = slog.LevelWarn
	case raftstore.SpaceChanged:
		if x.Low {
			level = slog.LevelError
		}
	case raftstore.LeaderChanged:
		if x.Leader == 0 {
			level = slog.LevelWarn
		}
	case raftstore.CheckpointDone, raftstore.RemovalDone, raftstore.LeasesExpired, raftstore.CompactionDone:
		level = slog.LevelDebug
	case raftstore.Fatal:
		level = levelFatal
	}
	log.Log(bg, level, e.String())
}
