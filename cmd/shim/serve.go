package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.etcd.io/etcd/api/v3/version"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/auth/token"
	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// drainTimeout is how long calls under way may go on once the process is told
// to stop.
const drainTimeout = 5 * time.Second

// probeConnectionsMax bounds the connections to the addresses for metrics; a
// further one waits in the kernel's queue. It fits into the descriptors that the
// addresses for clients leave.
const probeConnectionsMax = 50

var bg = context.Background()

// member is the running process: the store and everything that is attached to
// it.
type member struct {
	c      *Config
	log    *slog.Logger
	warn   *warnings
	tokens token.Provider
	memory compact.Memory
	tracer trace.TracerProvider // nil: nothing is traced

	store     *raftstore.Store
	hub       *watchcache.Hub
	resources *etcdapi.Resources
	counting  sync.WaitGroup
	telling   atomic.Bool // tellGrowth is under way
	api       *etcdapi.Server
	drain     *etcdapi.Drain
	front     *etcdapi.Front
	gateway   *etcdapi.Gateway // nil: off
	metrics   *prometheus.Registry
	health    *etcdapi.HealthMetrics
	loading   raftstore.Loading
	probes    *etcdapi.Front // the addresses for metrics
	probeHTTP atomic.Pointer[http.Handler]

	transport  *transport.Transport
	peerHTTP   atomic.Pointer[http.Handler]
	peerFailed chan error // capacity: addresses for members
}

// serve runs a member until it is told to stop, which is a signalled error, or
// cannot go on.
//
// The addresses are bound before the data is touched, so that a second process
// on the same ports fails early; clients that come meanwhile wait in the
// kernel's queue. Those for metrics are served from then on, so that probes see
// how far the member has come.
func serve(c *Config, log *slog.Logger) error {
	stop, cancel := notifySignals()
	defer cancel()
	if c.MemoryMlock {
		if err := lockMemory(); err != nil {
			return err
		}
	}
	limit := findMemoryLimit(c.MemoryLimit)
	memory := newPolicy(log, limit)
	logStart(c, log)

	tracer, stopTracing, err := startTracing(c, log)
	if err != nil {
		return err
	}
	defer stopTracing()
	m := &member{c: c, log: log, warn: newWarnings(log), tracer: tracer, memory: c.memory(limit.bytes), metrics: prometheus.NewRegistry(), resources: etcdapi.NewResources(compact.Quota(c.QuotaBackendBytes).Ceiling()), drain: etcdapi.NewDrain()}
	m.health = etcdapi.NewHealthMetrics(m.metrics)
	if m.tokens, err = c.tokens(); err != nil {
		return err
	}
	listeners, err := bind(stop, c, log)
	if err != nil {
		return err
	}
	if err := m.probe(listeners); err != nil {
		listeners.close()
		return err
	}
	m.peerFailed = make(chan error, len(c.ListenPeerURLs))
	if err := unlessStopped(stop, func() error { return m.open(stop, listeners) }); err != nil {
		listeners.close()
		if stop.Err() != nil {
			err = context.Cause(stop)
			log.Info("received signal; the data is not open yet", "signal", err.Error())
		}
		return err
	}
	memory.start(m.store.FitMemory)
	err = m.run(stop, listeners)
	if err = errors.Join(err, m.close()); err == nil {
		err = context.Cause(stop)
	}
	return err
}

// unlessStopped is open, unless stop ends before: then the process is to end at once, as etcd's does, and not when
// all data has been read. What is under way is left as a crash leaves it; no client was served.
func unlessStopped(stop context.Context, open func() error) error {
	opened := make(chan error, 1)
	go func() { opened <- open() }()
	select {
	case err := <-opened:
		return err
	case <-stop.Done():
		return context.Cause(stop)
	}
}

// open opens the store with the watch hub behind it. A member that starts for
// the first time finds its cluster before.
func (m *member) open(ctx context.Context, l *listeners) error {
	c := m.c
	begun, err := c.dirs().Begun(vfs.OS)
	if err != nil {
		return err
	}
	cluster, token := c.InitialCluster, c.InitialClusterToken
	if !begun {
		if cluster, token, err = c.cluster(ctx, m.log); err != nil {
			return err
		}
	}
	var late lateHub
	store, err := raftstore.Open(m.storeConfig(l, cluster, token, &late))
	if err != nil {
		return err // says which directory, in one line
	}
	m.store = store
	m.servePeers(l)
	if !begun {
		// From here on the database tells that there is a log. Without that, a member that lost its only segment would begin anew.
		_ = store.Checkpoint(bg) // a failure is an event, and the policy tries again
	}
	m.hub = late.open(watchcache.Options{WindowBytes: m.memory.WindowBytes(), BatchBytes: int(m.memory.WatchBatchBytes())}, watchcache.Env{View: store.View})
	m.counting.Go(func() { // beside serving: a scrape waits for it, nobody else
		if err := m.resources.Begin(store.View()); err != nil {
			m.log.Error("cannot count the resources", "error", err)
		}
	})
	return nil
}

// storeConfig is what the settings mean for the store. late is told what is applied.
func (m *member) storeConfig(l *listeners, cluster, token string, late *lateHub) raftstore.Config {
	c := m.c
	serverName := c.peerServerName(cluster)
	cfg := raftstore.Config{
		DataDir:                c.Dir,
		WALDir:                 c.WalDir,
		Name:                   c.Name,
		InitialCluster:         cluster,
		ClusterToken:           token,
		ClusterState:           c.ClusterState,
		PeerURLs:               urlStrings(c.AdvertisePeerURLs),
		ClientURLs:             urlStrings(c.AdvertiseClientURLs),
		TickInterval:           time.Duration(c.TickMs) * time.Millisecond,
		ElectionTicks:          int(c.ElectionMs / c.TickMs),
		Quota:                  compact.Quota(c.QuotaBackendBytes),
		Memory:                 m.memory,
		Checkpoints:            c.checkpoints(),
		WALSegmentBytes:        c.segmentBytes(),
		MaxRequestBytes:        c.requestBytes(),
		SnapshotCatchupEntries: c.SnapshotCatchUpCount,
		LaxReconfiguration:     !c.StrictReconfigCheck,
		LearnersMax:            cmp.Or(max(c.MaxLearners, 0), membership.NoLearners),
		ForceNewCluster:        c.ForceNewCluster,
		CorruptCheckInterval:   c.CorruptCheckTime,
		InitialCorruptCheck:    c.Gates.enabled(*lookupFeature("InitialCorruptCheck")),
		FetchMembers:           fetchMembers(l, serverName),
		OnApply: func(v *mvcc.View, events []mvcc.Event) {
			late.append(v, events)
			m.resources.Apply(v, events)
		},
		SlowApply: orAlways(c.WarningApplyDuration),
		Trace:     m.tracer != nil,

		MemoryLocked: c.MemoryMlock,
		OnEvent: func(e raftstore.Event) {
			if m.warn.event(c, e) {
				return
			}
			logEvent(m.log, e)
			m.tellGrowth(e)
		},
		Registerer: m.metrics,
		Tokens:     m.tokens,
		Defrag:     c.defrag(),
		Loading:    &m.loading,

		NoPreVote:     !c.PreVote,
		NoTickAdvance: !c.InitialElectionTickAdvance,
		Connect:       m.connect(l, serverName),
	}
	if c.Gates.enabled(*lookupFeature("CompactHashCheck")) {
		cfg.CompactCheckInterval = c.CompactHashCheckTime
	}
	return cfg
}

// probe serves the addresses for metrics: that this member loads, until
// answerProbes says something else.
func (m *member) probe(l *listeners) (err error) {
	m.answerProbes(etcdapi.NewLoadingHandler(etcdapi.HTTPOptions{Gatherer: m.metrics, Health: m.health, Log: m.log,
		Pprof: m.c.EnablePprof || m.c.LogLevel == "debug"}, m.loading.String))
	m.probes, err = etcdapi.NewFront(etcdapi.FrontOptions{OnRejected: m.logRejected, ConnectionsMax: probeConnectionsMax},
		l.probes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*m.probeHTTP.Load()).ServeHTTP(w, r) })))
	if err != nil {
		return err
	}
	m.probes.Start()
	for _, u := range m.c.ListenMetricsURLs {
		m.log.Info("serving metrics", "address", u.String())
	}
	return nil
}

func (m *member) answerProbes(h http.Handler) { m.probeHTTP.Store(&h) }

// run serves until stop ends or something fails, and then lets the calls under
// way finish.
func (m *member) run(stop context.Context, listeners *listeners) error {
	stopCompaction, err := m.startCompaction()
	if err != nil {
		listeners.close()
		return err
	}
	defer stopCompaction()
	if err := m.build(listeners); err != nil {
		listeners.close()
		return err
	}
	if err := m.awaitLeader(stop); err != nil {
		listeners.close()
		switch {
		case stop.Err() != nil:
			return nil
		case errors.Is(err, raftstore.ErrRemoved):
			logRemoved(m.log)
			return nil
		}
		return err
	}
	m.front.Start()
	m.answerProbes(etcdapi.NewMetricsHandler(m.httpOptions()))
	m.log.Info("ready to serve client requests")
	m.logServing()
	notifySystemd(m.log, "READY=1")

	select {
	case <-stop.Done():
		m.log.Info("received signal; shutting down", "signal", context.Cause(stop).Error())
		m.handOver()
	case <-m.store.Removed():
		logRemoved(m.log)
	case err = <-m.peerFailed:
	case err = <-m.front.Err():
		err = fmt.Errorf("listener failed: %w", err)
	case err = <-m.probes.Err():
		err = fmt.Errorf("listener failed: %w", err)
	case <-m.store.Failed():
		err = fmt.Errorf("the store cannot go on: %w", m.store.Err())
	}
	notifySystemd(m.log, "STOPPING=1")
	ctx, cancel := context.WithTimeout(bg, drainTimeout)
	defer cancel()
	m.drain.Begin()
	if derr := errors.Join(m.front.Shutdown(ctx), m.probes.Shutdown(ctx)); derr != nil {
		m.log.Warn("calls under way were cut off", "after", drainTimeout)
	}
	if m.gateway != nil {
		if gerr := m.gateway.Close(); gerr != nil {
			m.log.Warn("cannot close the gateway", "error", gerr)
		}
	}
	return err
}

// handOver lets another member lead, while calls are still served here.
func (m *member) handOver() {
	ctx, cancel := context.WithTimeout(bg, drainTimeout)
	defer cancel()
	if err := m.store.HandOver(ctx); err != nil {
		m.log.Warn("cannot hand over the leadership", "error", err)
	}
}

// close writes the last checkpoint and closes the store.
func (m *member) close() error {
	m.counting.Wait()
	m.log.Info("closing etcd server", "name", m.c.Name, "data-dir", m.c.Dir)
	if err := m.store.Close(); err != nil {
		return fmt.Errorf("close data directory %s: %w", m.c.Dir, err)
	}
	m.log.Info("closed etcd server", "name", m.c.Name, "data-dir", m.c.Dir)
	return nil
}

// awaitLeader waits until this member can answer: until a read index is
// confirmed, and the others know its client URLs. A member that the others
// say was removed never can: raftstore.ErrRemoved.
func (m *member) awaitLeader(stop context.Context) error {
	ctx, cancel := context.WithCancelCause(stop)
	defer cancel(nil)
	go func() {
		select {
		case <-m.store.Removed():
			cancel(raftstore.ErrRemoved)
		case <-ctx.Done():
		}
	}()
	for {
		_, err := m.store.ReadView(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, raftstore.ErrStopped) {
			return err
		}
		m.log.Warn("waiting for the cluster to have a leader", "error", err)
		select {
		case <-m.store.Failed():
			return fmt.Errorf("the store cannot go on: %w", m.store.Err())
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case <-m.store.Published():
		return nil
	case <-m.store.Failed():
		return fmt.Errorf("the store cannot go on: %w", m.store.Err())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startCompaction starts the automatic compaction, if one is asked for.
func (m *member) startCompaction() (stop func(), err error) {
	o, err := m.c.compaction()
	if err != nil {
		return nil, err
	}
	auto, err := compact.New(o, compact.Env{
		Revision: func() mvcc.Revision { return m.store.View().Revision() },
		Compact:  m.compact,
		Now:      time.Now,
		After:    time.After,
		Paused:   func() bool { return m.store.Status().Leader != m.store.MemberID() },
		Event:    m.logCompaction,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		auto.Run(ctx)
	}()
	return func() { cancel(); <-done }, nil
}

// build makes the API and the endpoints of every address.
func (m *member) build(l *listeners) error {
	c := m.c
	opts := etcdapi.Options{
		MaxRequestBytes:             c.requestBytes(),
		MaxTxnOps:                   orNone(c.MaxTxnOps),
		MaxConcurrentStreams:        c.MaxConcurrentStreams,
		KeepAliveMinTime:            orPatient(c.GRPCKeepAliveMinTime),
		KeepAliveInterval:           orNever(c.GRPCKeepAliveInterval, c.GRPCKeepAliveTimeout),
		KeepAliveTimeout:            max(0, c.GRPCKeepAliveTimeout),
		WatchProgressNotifyInterval: c.WatchProgressNotifyInterval,
		ListBytes:                   m.memory.ListBytes(),
		Ranges:                      etcdapi.NewRangeMetrics(m.metrics),
		ExtensiveMetrics:            c.Metrics == metricsExtensive,
		OnSlowCall:                  m.slowCall,
		Tokens:                      m.tokens,
		BcryptCost:                  int(c.BcryptCost),
		ClientCertAuth:              c.ClientTLS.ClientCertAuth,
		SlowCallMin:                 c.WarningUnaryRequestDuration,
		OnSlowRead:                  m.slowRead,
		SlowReadMin:                 c.WarningApplyDuration,
		TracerProvider:              m.tracer,
	}
	if m.log.Enabled(bg, slog.LevelDebug) {
		opts.SlowCallMin = -1
	}
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return err
	}
	peer := etcdapi.NewPeerHandler(m.httpOptions())
	m.peerHTTP.Store(&peer)
	m.api = etcdapi.New(opts, m.store, m.hub)
	options := append(m.drain.Options(), grpc.Creds(etcdapi.FrontCredentials()))
	server := m.api.NewGRPCServer(options...)
	patient := m.api.NewGRPCServer(append(options, etcdapi.AnyPings())...)
	pages := m.httpOptions()
	if c.EnableGRPCGateway {
		gateway, err := etcdapi.NewGateway(m.api, m.drain.Options()...)
		if err != nil {
			return err
		}
		m.gateway, pages.Gateway = gateway, gateway
	}
	front, err := etcdapi.NewFront(etcdapi.FrontOptions{OnRejected: m.logRejected, MoreToSend: m.hub.Waking,
		Revision: func() int64 { return int64(m.store.View().Revision()) }},
		l.endpoints(server, patient, etcdapi.NewClientHandler(pages)))
	if err != nil {
		return err
	}
	m.front = front
	m.register()
	return nil
}

// orAlways is a threshold, negative when it is 0, which is always exceeded.
func orAlways(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}

// orNever is the keep-alive interval, negative when pings are off.
func orNever(interval, timeout time.Duration) time.Duration {
	if interval <= 0 || timeout <= 0 {
		return -1
	}
	return interval
}

// orPatient is the shortest time between a client's pings: gRPC's own where none
// is set, which etcd leaves it at then.
func orPatient(least time.Duration) time.Duration {
	if least <= 0 {
		return 5 * time.Minute
	}
	return least
}

// orNone is a largest number of which 0 is not the default, as a field of which
// a number below 0 is none.
func orNone(most uint) int {
	if most == 0 {
		return -1
	}
	return int(min(most, math.MaxInt32))
}

// register puts every metric that is not the store's own into the registry.
func (m *member) register() {
	features := []etcdapi.FeatureState{{Name: gateAllAlpha, Stage: "ALPHA", On: m.c.Gates[gateAllAlpha]}, {Name: gateAllBeta, Stage: "BETA", On: m.c.Gates[gateAllBeta]}}
	for _, f := range allFeatures {
		features = append(features, etcdapi.FeatureState{Name: f.name, Stage: f.stage, On: m.c.Gates.enabled(f)})
	}
	m.metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.hub.Collector(),
		m.api.GRPCMetrics(),
		etcdapi.NewServerCollector(etcdapi.MetricsEnv{
			Version: shimVersion, Traffic: m.front.Traffic, Connections: m.front.Connections, Lists: m.api.ListStats, Resources: m.resources, Features: features,
		}),
	)
}

func (m *member) logRejected(r etcdapi.Rejected) {
	level := slog.LevelWarn
	if r.Quiet() {
		level = slog.LevelDebug
	}
	m.log.Log(bg, level, "rejected connection on client endpoint", "remote-addr", r.Remote.String(), "server-name", r.ServerName, "error", r.Err)
}

// logStart tells what is about to start, with the settings that matter.
func logStart(c *Config, log *slog.Logger) {
	quota := compact.Quota(c.QuotaBackendBytes)
	logQuota(quota, log)
	begun, _ := c.dirs().Begun(vfs.OS) // told again, with the error, when it is opened
	log.Info("starting an etcd server",
		"etcd-version", version.Version, "shim-version", shimVersion, "git-sha", gitSHA(),
		"go-version", runtime.Version(), "go-os", runtime.GOOS, "go-arch", runtime.GOARCH,
		"max-cpu-set", runtime.GOMAXPROCS(0), "max-cpu-available", runtime.NumCPU(),
		"member-initialized", begun, "name", c.Name, "data-dir", c.Dir, "dedicated-wal-dir", c.WalDir,
		"heartbeat-interval", time.Duration(c.TickMs)*time.Millisecond, "election-timeout", time.Duration(c.ElectionMs)*time.Millisecond,
		"initial-advertise-peer-urls", urlStrings(c.AdvertisePeerURLs), "listen-peer-urls", urlStrings(c.ListenPeerURLs),
		"advertise-client-urls", urlStrings(c.AdvertiseClientURLs), "listen-client-urls", urlStrings(c.ListenClientURLs),
		"listen-metrics-urls", urlStrings(c.ListenMetricsURLs), "initial-cluster", c.InitialCluster,
		"initial-cluster-state", c.ClusterState, "initial-cluster-token", c.InitialClusterToken,
		"quota-backend-bytes", quota.Ceiling(), "max-request-bytes", c.MaxRequestBytes, "max-concurrent-streams", c.MaxConcurrentStreams,
		"feature-gates", c.Gates.String(), "auto-compaction-mode", c.AutoCompactionMode, "auto-compaction-retention", c.AutoCompactionRetention,
		"auto-defrag", c.AutoDefrag)
}

// logServing has a line for each address that clients use.
func (m *member) logServing() {
	for _, u := range append(m.c.ListenClientURLs[:len(m.c.ListenClientURLs):len(m.c.ListenClientURLs)], m.c.ListenClientHTTPURLs...) {
		if etcdapi.Secure(u) {
			m.log.Info("serving client traffic securely", "address", u.String())
		} else {
			m.log.Info("serving client traffic insecurely; this is strongly discouraged!", "address", u.String())
		}
	}
}
