package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"

	"github.com/kubeshim/shim/pkg/auth/password"
	"github.com/kubeshim/shim/pkg/auth/token"
	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/etcdapi"
	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
)

// etcd's defaults that are needed by name.
const (
	nameDefault               = "default"
	peerURLDefault            = "http://localhost:2380"
	clientURLDefault          = "http://localhost:2379"
	snapshotCountDefault      = 10000
	warningUnaryDefault       = 300 * time.Millisecond
	compactHashCheckDefault   = time.Minute
	clusterNew                = "new"
	clusterExisting           = "existing"
	metricsExtensive          = "extensive"
	electionMillisecondsLimit = 50000
)

// Config is what the flags, the environment or the configuration file say. The
// JSON names are those of etcd's configuration file. Flags of etcd's that mean
// nothing here have no field; see the table in flags.go.
type Config struct {
	Name string `json:"name"`
	// Dir is the data directory; Name.etcd when empty.
	Dir string `json:"data-dir"`
	// WalDir is a directory for the log alone; in Dir when empty.
	WalDir string `json:"wal-dir"`
	// SnapshotCount is the number of entries between checkpoints. etcd's default,
	// which kubeadm also writes down, leaves the pace to the store.
	SnapshotCount        uint64 `json:"snapshot-count"`
	SnapshotCatchUpCount uint64 `json:"snapshot-catchup-entries"`
	TickMs               uint   `json:"heartbeat-interval"` // milliseconds
	ElectionMs           uint   `json:"election-timeout"`   // milliseconds

	QuotaBackendBytes    int64  `json:"quota-backend-bytes"` // 0: 2 GiB, below 0: none
	MemoryLimit          int64  `json:"memory-limit"`        // 0: see memoryLimit
	HistoryBytes         int64  `json:"history-bytes"`       // 0: a share of the memory limit
	MemoryMlock          bool   `json:"memory-mlock"`
	MaxTxnOps            uint   `json:"max-txn-ops"`
	MaxRequestBytes      uint   `json:"max-request-bytes"`
	MaxConcurrentStreams uint32 `json:"max-concurrent-streams"`

	GRPCKeepAliveMinTime  time.Duration `json:"grpc-keepalive-min-time"`
	GRPCKeepAliveInterval time.Duration `json:"grpc-keepalive-interval"`
	GRPCKeepAliveTimeout  time.Duration `json:"grpc-keepalive-timeout"`
	SocketOpts            SocketOpts    `json:"socket-options"`

	EnableGRPCGateway bool `json:"enable-grpc-gateway"`

	ListenPeerURLs       []url.URL `json:"-"`
	ListenClientURLs     []url.URL `json:"-"`
	ListenClientHTTPURLs []url.URL `json:"-"`
	ListenMetricsURLs    []url.URL `json:"-"`
	ListenMetricsJSON    string    `json:"listen-metrics-urls"` // of the configuration file
	AdvertisePeerURLs    []url.URL `json:"-"`
	AdvertiseClientURLs  []url.URL `json:"-"` // nil when listen-client-urls was set and this was not

	ClientTLS              etcdapi.TLSOptions `json:"-"`
	ClientAutoTLS          bool               `json:"-"`
	PeerTLS                etcdapi.TLSOptions `json:"-"`
	PeerAutoTLS            bool               `json:"-"`
	PeerSkipClientSAN      bool               `json:"-"`
	SelfSignedCertValidity uint               `json:"self-signed-cert-validity"` // years
	CipherSuites           []string           `json:"cipher-suites"`
	TLSMinVersion          string             `json:"tls-min-version"`
	TLSMaxVersion          string             `json:"tls-max-version"`

	InitialCluster      string `json:"initial-cluster"`
	ClusterState        string `json:"initial-cluster-state"`
	InitialClusterToken string `json:"initial-cluster-token"`
	DiscoveryFallback   string `json:"-"`
	// The other ways to find a cluster; see clusterSources.
	DiscoverySRV     string          `json:"discovery-srv"`
	DiscoverySRVName string          `json:"discovery-srv-name"`
	Discovery        discoveryConfig `json:"discovery-config"`

	PreVote                    bool `json:"pre-vote"`
	InitialElectionTickAdvance bool `json:"initial-election-tick-advance"`

	StrictReconfigCheck bool `json:"strict-reconfig-check"`
	MaxLearners         int  `json:"max-learners"`
	ForceNewCluster     bool `json:"force-new-cluster"`

	CorruptCheckTime     time.Duration `json:"corrupt-check-time"` // 0: never
	CompactHashCheckTime time.Duration `json:"compact-hash-check-time"`

	AutoCompactionMode      string `json:"auto-compaction-mode"`
	AutoCompactionRetention string `json:"auto-compaction-retention"`

	Profile                           string `json:"profile"` // "" or profileEdge
	AutoDefrag                        bool   `json:"auto-defrag"`
	BootstrapDefragThresholdMegabytes uint   `json:"bootstrap-defrag-threshold-megabytes"`

	AuthToken    string `json:"auth-token"`
	AuthTokenTTL uint   `json:"auth-token-ttl"` // seconds
	BcryptCost   uint   `json:"bcrypt-cost"`

	CORS          []string `json:"-"`
	HostWhitelist []string `json:"-"`

	WatchProgressNotifyInterval time.Duration `json:"watch-progress-notify-interval"` // 0: 10 min
	WarningApplyDuration        time.Duration `json:"warning-apply-duration"`
	WarningUnaryRequestDuration time.Duration `json:"warning-unary-request-duration"`

	EnablePprof bool   `json:"enable-pprof"`
	Metrics     string `json:"metrics"` // basic or extensive

	Logger     string   `json:"logger"`
	LogLevel   string   `json:"log-level"`
	LogFormat  string   `json:"log-format"`
	LogOutputs []string `json:"log-outputs"`

	EnableLogRotation     bool   `json:"enable-log-rotation"`
	LogRotationConfigJSON string `json:"log-rotation-config-json"`

	EnableDistributedTracing            bool   `json:"enable-distributed-tracing"`
	DistributedTracingAddress           string `json:"distributed-tracing-address"`
	DistributedTracingServiceName       string `json:"distributed-tracing-service-name"`
	DistributedTracingServiceInstanceID string `json:"distributed-tracing-instance-id"`
	DistributedTracingSamplingRate      int    `json:"distributed-tracing-sampling-rate"` // per million

	Gates featureGates `json:"-"`

	// explicit names the flags that were set, by whichever way, under their flag
	// names; warnings is what is worth telling about them.
	explicit map[string]bool
	warnings []string
	notes    []string
}

// SocketOpts are those of the listening sockets.
type SocketOpts struct {
	ReusePort    bool `json:"reuse-port"`
	ReuseAddress bool `json:"reuse-address"`
}

// DefaultConfig is etcd's configuration without a flag.
func DefaultConfig() *Config {
	c := &Config{
		Name:                        nameDefault,
		SnapshotCount:               snapshotCountDefault,
		SnapshotCatchUpCount:        5000,
		TickMs:                      100,
		ElectionMs:                  1000,
		MaxTxnOps:                   128,
		MaxRequestBytes:             1536 * 1024,
		MaxConcurrentStreams:        math.MaxUint32,
		EnableGRPCGateway:           true,
		GRPCKeepAliveMinTime:        5 * time.Second,
		GRPCKeepAliveInterval:       2 * time.Hour,
		GRPCKeepAliveTimeout:        20 * time.Second,
		ListenPeerURLs:              mustURLs(peerURLDefault),
		ListenClientURLs:            mustURLs(clientURLDefault),
		AdvertisePeerURLs:           mustURLs(peerURLDefault),
		AdvertiseClientURLs:         mustURLs(clientURLDefault),
		SelfSignedCertValidity:      1,
		TLSMinVersion:               "TLS1.2",
		InitialCluster:              nameDefault + "=" + peerURLDefault,
		ClusterState:                clusterNew,
		InitialClusterToken:         "etcd-cluster",
		DiscoveryFallback:           "exit",
		Discovery:                   defaultDiscovery(),
		PreVote:                     true,
		InitialElectionTickAdvance:  true,
		StrictReconfigCheck:         true,
		MaxLearners:                 membership.LearnersMaxDefault,
		CompactHashCheckTime:        compactHashCheckDefault,
		AutoCompactionMode:          string(compact.ModePeriodic),
		AutoCompactionRetention:     "0",
		AutoDefrag:                  true,
		AuthToken:                   "simple",
		AuthTokenTTL:                uint(token.TTLDefault / time.Second),
		BcryptCost:                  password.CostDefault,
		CORS:                        []string{"*"},
		HostWhitelist:               []string{"*"},
		WarningApplyDuration:        100 * time.Millisecond,
		WarningUnaryRequestDuration: warningUnaryDefault,
		Metrics:                     "basic",
		Logger:                      "zap",
		LogLevel:                    "info",
		LogFormat:                   logFormatJSON,
		LogOutputs:                  []string{logOutputDefault},
		LogRotationConfigJSON:       logRotationDefault,

		DistributedTracingAddress:     "localhost:4317",
		DistributedTracingServiceName: "etcd",

		Gates:    featureGates{},
		explicit: map[string]bool{},
	}
	return c
}

func mustURLs(s string) []url.URL {
	urls, err := parseURLs(s)
	if err != nil {
		panic(fmt.Sprintf("default URL %q: %v", s, err))
	}
	return urls
}

// EnsureDefaults replaces the values that mean "the default" by it, and derives
// what follows from other settings: the data directory and the initial cluster
// from the name, advertised addresses from listening on all of them.
func (c *Config) EnsureDefaults() {
	if c.ClusterState == "" {
		c.ClusterState = clusterNew
	}
	if c.AutoCompactionRetention == "" {
		c.AutoCompactionRetention = "0"
	}
	if c.WarningUnaryRequestDuration == 0 {
		c.WarningUnaryRequestDuration = warningUnaryDefault
	}
	if len(c.LogOutputs) == 0 {
		c.LogOutputs = []string{logOutputDefault}
	}
	c.deriveCluster()
	if c.Dir == "" {
		c.Dir = c.Name + ".etcd"
		c.warn("'data-dir' was empty; using default %s", c.Dir)
	}
	if kind, _, _ := strings.Cut(c.AuthToken, ","); kind == "simple" {
		c.note("simple token is not cryptographically signed")
	}
	if c.BcryptCost < password.CostMin || c.BcryptCost > password.CostMax {
		c.warn("--bcrypt-cost %d is not between %d and %d; using %d", c.BcryptCost, password.CostMin, password.CostMax, password.CostDefault)
		c.BcryptCost = password.CostDefault
	}
	if c.Name == nameDefault {
		c.warn("it isn't recommended to use default name, please set a value for --name. " +
			"Note that etcd might run into issue when multiple members have the same default name")
	}
	if len(c.ListenClientHTTPURLs) == 0 {
		c.note("gRPC and HTTP are served on one port")
	}
}

func (c *Config) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

func (c *Config) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// Validate reports everything that is wrong, in etcd's words.
func (c *Config) Validate() error {
	errs := []error{
		validateLogging(c),
		bindURLs(c.ListenPeerURLs), bindURLs(c.ListenClientURLs),
		bindURLs(c.ListenClientHTTPURLs), bindURLs(c.ListenMetricsURLs),
	}
	if err := hostURLs(c.AdvertisePeerURLs); err != nil {
		errs = append(errs, fmt.Errorf(`--initial-advertise-peer-urls %q must be "host:port" (%w)`, joinURLs(c.AdvertisePeerURLs), err))
	}
	if err := hostURLs(c.AdvertiseClientURLs); err != nil {
		errs = append(errs, fmt.Errorf(`--advertise-client-urls %q must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (%w)`, joinURLs(c.AdvertiseClientURLs), err))
	}
	errs = append(errs, c.validateCluster(), c.validateTimes())
	if len(c.ListenClientURLs) > 0 && c.AdvertiseClientURLs == nil {
		errs = append(errs, errors.New("--advertise-client-urls is required when --listen-client-urls is set explicitly"))
	}
	if _, err := c.compaction(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.validateTracing(), c.validateGates(), c.validateTLS())
	return errors.Join(errs...)
}

func (c *Config) validateTimes() error {
	switch {
	case c.TickMs == 0:
		return fmt.Errorf("--heartbeat-interval must be >0 (set to %dms)", c.TickMs)
	case c.ElectionMs == 0:
		return fmt.Errorf("--election-timeout must be >0 (set to %dms)", c.ElectionMs)
	case 5*c.TickMs > c.ElectionMs:
		return fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", c.ElectionMs, c.TickMs)
	case c.ElectionMs > electionMillisecondsLimit:
		return fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", c.ElectionMs, electionMillisecondsLimit)
	case c.CompactHashCheckTime <= 0:
		return fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", c.CompactHashCheckTime)
	}
	return nil
}

func (c *Config) validateGates() error {
	if c.Gates["LeaseCheckpointPersist"] && !c.Gates.enabled(*lookupFeature("LeaseCheckpoint")) {
		return errors.New("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
	}
	return nil
}

// validateTLS also turns the names of versions and suites into numbers.
func (c *Config) validateTLS() error {
	lowest, err1 := tlsutil.GetTLSVersion(c.TLSMinVersion)
	highest, err2 := tlsutil.GetTLSVersion(c.TLSMaxVersion)
	suites, err3 := tlsutil.GetCipherSuites(c.CipherSuites)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if highest != 0 && lowest > highest {
		return fmt.Errorf("min version (%s) is greater than max version (%s)", c.TLSMinVersion, c.TLSMaxVersion)
	}
	if lowest == tls.VersionTLS13 && len(suites) > 0 {
		return errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	for _, o := range []*etcdapi.TLSOptions{&c.ClientTLS, &c.PeerTLS} {
		o.MinVersion, o.MaxVersion, o.CipherSuites = lowest, highest, suites
	}
	c.PeerTLS.VerifyClientAddress = !c.PeerSkipClientSAN
	if c.ClientTLS.Empty() && !c.ClientAutoTLS {
		for _, u := range append(append(c.ListenClientURLs[:len(c.ListenClientURLs):len(c.ListenClientURLs)], c.ListenClientHTTPURLs...), c.ListenMetricsURLs...) {
			if etcdapi.Secure(u) {
				return fmt.Errorf("TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme", u.String())
			}
		}
	}
	return nil
}

// requestBytes is --max-request-bytes, as far as a message of gRPC's can be that
// large.
func (c *Config) requestBytes() int { return int(min(c.MaxRequestBytes, etcdapi.MaxRequestBytesLimit)) }

func (c *Config) dirs() raftstore.Dirs { return raftstore.Dirs{Data: c.Dir, WAL: c.WalDir} }

// tokens is the provider of --auth-token; it reads the files of keys.
func (c *Config) tokens() (token.Provider, error) {
	return token.New(token.Options{Kind: c.AuthToken, TTL: time.Duration(c.AuthTokenTTL) * time.Second})
}

// defrag says when the database file is written anew.
func (c *Config) defrag() compact.DefragPolicy {
	const megabyte = 1 << 20 // as etcd has it
	return compact.DefragPolicy{Off: !c.AutoDefrag, StartBytes: int64(c.BootstrapDefragThresholdMegabytes) * megabyte}
}

// compaction is the automatic compaction asked for.
func (c *Config) compaction() (compact.Options, error) {
	return compact.ParseOptions(c.AutoCompactionMode, c.AutoCompactionRetention)
}

// bindURLs refuses names to listen on, other than localhost.
func bindURLs(urls []url.URL) error {
	for _, u := range urls {
		if u.Scheme == "unix" || u.Scheme == "unixs" {
			continue
		}
		host, _, err := net.SplitHostPort(u.Host)
		if err != nil {
			return err
		}
		if host != "localhost" && net.ParseIP(host) == nil {
			return fmt.Errorf("expected IP in URL for binding (%s)", u.String())
		}
	}
	return nil
}

func hostURLs(urls []url.URL) error {
	for _, u := range urls {
		if u.Scheme == "unix" || u.Scheme == "unixs" {
			continue
		}
		host, _, err := net.SplitHostPort(u.Host)
		if err != nil {
			return err
		}
		if host == "" {
			return fmt.Errorf("unexpected empty host (%s)", u.String())
		}
	}
	return nil
}

// deriveCluster completes the initial cluster and the advertised addresses, as
// etcd does: --name alone renames the default cluster, and a member that listens
// on all addresses advertises the host's own instead of localhost.
func (c *Config) deriveCluster() {
	host := ""
	if listensEverywhere(c.ListenPeerURLs) && joinURLs(c.AdvertisePeerURLs) == peerURLDefault ||
		listensEverywhere(c.ListenClientURLs) && joinURLs(c.AdvertiseClientURLs) == clientURLDefault {
		var err error
		if host, err = defaultHost(); err != nil {
			c.note("failed to detect default host: %v", err)
		}
	}
	if host != "" {
		advertiseHost(host, c.ListenPeerURLs, c.AdvertisePeerURLs, peerURLDefault)
		advertiseHost(host, c.ListenClientURLs, c.AdvertiseClientURLs, clientURLDefault)
		c.note("detected default host for advertise: %s", host)
	}
	if c.Name != nameDefault && c.InitialCluster == nameDefault+"="+peerURLDefault {
		var pairs []string
		for _, u := range c.AdvertisePeerURLs {
			pairs = append(pairs, c.Name+"="+u.String())
		}
		c.InitialCluster = strings.Join(pairs, ",")
	}
}

func listensEverywhere(urls []url.URL) bool {
	return len(urls) > 0 && urls[0].Hostname() == "0.0.0.0"
}

func advertiseHost(host string, listen, advertise []url.URL, def string) {
	if listensEverywhere(listen) && joinURLs(advertise) == def {
		advertise[0] = url.URL{Scheme: advertise[0].Scheme, Host: net.JoinHostPort(host, listen[0].Port())}
	}
}

// defaultHost is the address this host would use towards the rest of the world.
// Connecting a datagram socket chooses it and sends nothing.
func defaultHost() (string, error) {
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		host, _, err := net.SplitHostPort(c.LocalAddr().String())
		_ = c.Close()
		if err == nil {
			return host, nil
		}
	}
	return "", errors.New("could not find default route")
}

// memory is how much of the data may be in memory. limit is what the process may
// use.
func (c *Config) memory(limit int64) compact.Memory {
	m := compact.Memory{Limit: limit, HistoryBytes: c.HistoryBytes}
	m.EnsureDefaults()
	return m
}
