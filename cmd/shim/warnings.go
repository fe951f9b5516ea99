package main

import (
	"log/slog"
	"sync"
	"time"

	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
)

// warningsMax is how many warnings of a kind are written in a second: one slow
// disk makes each call slow. The next that is written says how many were not.
const warningsMax = 10

// warnings writes etcd's warnings about what takes long, at a bounded rate.
type warnings struct {
	out *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	kinds map[string]*warned
}

type warned struct {
	second  int64
	n       int // written in this second
	skipped int // since the last one that was written
}

func newWarnings(log *slog.Logger) *warnings {
	return &warnings{out: log, now: time.Now, kinds: make(map[string]*warned)}
}

// admit says whether a warning may be written, and how many before it were not.
func (w *warnings) admit(kind string) (skipped int, ok bool) {
	second := w.now().Unix()
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds[kind]
	if k == nil {
		k = &warned{}
		w.kinds[kind] = k
	}
	if k.second != second {
		k.second, k.n = second, 0
	}
	if k.n == warningsMax {
		k.skipped++
		return 0, false
	}
	k.n++
	skipped, k.skipped = k.skipped, 0
	return skipped, true
}

func (w *warnings) log(kind, msg string, attrs ...any) {
	if skipped, ok := w.admit(kind); ok {
		w.write(msg, skipped, attrs)
	}
}

func (w *warnings) write(msg string, skipped int, attrs []any) {
	if skipped > 0 {
		attrs = append(attrs, "suppressed", skipped)
	}
	w.out.Warn(msg, attrs...)
}

// event is for the store's events that are warnings of this kind; others are left
// to the caller.
func (w *warnings) event(c *Config, e raftstore.Event) bool {
	switch x := e.(type) {
	case raftstore.SlowApply:
		if skipped, ok := w.admit("apply"); ok { // before the texts are made
			w.tookTooLong(c, skipped, x.Took, "", x.RequestText(), x.ResponseText(), x.Result.Err)
		}
	case raftstore.SlowFsync:
		w.log("fsync", x.String(), "took", x.Took, "expected-duration", x.Expected)
	case raftstore.SlowReadIndex:
		w.log("read index", x.String(), "sent-request-id", x.Request, "retry-timeout", x.Retry)
	default:
		return false
	}
	return true
}

func (w *warnings) tookTooLong(c *Config, skipped int, took time.Duration, prefix, request, response string, err error) {
	attrs := []any{"took", took, "expected-duration", c.WarningApplyDuration, "prefix", prefix, "request", request, "response", response}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	w.write("apply request took too long", skipped, attrs)
}

// slowRead is --warning-apply-duration for reads.
func (m *member) slowRead(x etcdapi.SlowRead) {
	if skipped, ok := m.warn.admit("read"); ok {
		m.warn.tookTooLong(m.c, skipped, x.Took, x.Prefix, x.Request, x.Response, x.Err)
	}
}

// slowCall is --warning-unary-request-duration. With --log-level=debug it is told
// of each call.
func (m *member) slowCall(x etcdapi.SlowCall) {
	attrs := []any{"start time", x.Start, "time spent", x.Took, "remote", x.Remote, "response type", x.Method,
		"request count", x.RequestCount, "request size", x.RequestSize, "response count", x.ResponseCount, "response size", x.ResponseSize,
		"request content", x.Content}
	if m.log.Enabled(bg, slog.LevelDebug) {
		m.log.Debug("request stats", attrs...)
		return
	}
	m.warn.log("call", "request stats", attrs...)
}
