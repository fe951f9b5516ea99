package main

import (
	"log/slog"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// logQuota tells of the quota as etcd does.
func logQuota(q compact.Quota, log *slog.Logger) {
	if !q.Suggested() {
		log.Warn("quota exceeds the maximum value", "quota-size-bytes", q.Ceiling(), "quota-maximum-size-bytes", int64(compact.SuggestedQuotaBytesMax))
	}
	switch n, ok := q.Bytes(); {
	case !ok:
		log.Info("disabled backend quota", "quota-size-bytes", int64(q))
	case q == 0:
		log.Info("enabled backend quota with default value", "quota-size-bytes", n)
	default:
		log.Info("enabled backend quota", "quota-size-bytes", n)
	}
}

// tellGrowth logs which resources and namespaces have grown most when the quota
// is near, and when it is reached, on a goroutine of its own.
func (m *member) tellGrowth(e raftstore.Event) {
	switch x := e.(type) {
	case raftstore.QuotaNear:
	case raftstore.AlarmChanged:
		if !x.Raised || x.Alarm != "NOSPACE" {
			return
		}
	default:
		return
	}
	if !m.telling.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer m.telling.Store(false)
		report, ok := m.resources.Growth(func() *mvcc.View { return m.store.View() })
		if !ok {
			m.log.Warn("cannot tell what has grown")
			return
		}
		m.log.Warn("what has grown most, in bytes", "since", report.Since, "most", growthText(report.Most))
	}()
}

func growthText(most []etcdapi.Growth) []string {
	text := make([]string, len(most))
	for i, g := range most {
		text[i] = g.String()
	}
	return text
}
