package main

import (
	"flag"
	"net/url"
	"strings"
	"time"
)

// Reasons that several inert flags share.
const (
	ownCheckpoints = "checkpoints are paced by the size and age of the log"
)

// flagTable is every flag of etcd 3.7.3, and our own, in the order of --help.
func flagTable() []flagGroup {
	return []flagGroup{
		{"Member", memberFlags()},
		{"Clustering", clusterFlags()},
		{"Discovery", discoveryFlags()},
		{"Security", securityFlags()},
		{"Peer security", peerSecurityFlags()},
		{"Auth", authFlags()},
		{"Profiling and monitoring", monitoringFlags()},
		{"Logging", loggingFlags()},
		{"Features", featureFlags()},
		{"Upkeep (not etcd's)", upkeepFlags()},
		{"Unsafe features", unsafeFlags()},
	}
}

func memberFlags() []flagDef {
	return []flagDef{
		{"name", text(func(c *Config) *string { return &c.Name }), "The name of this member.", ""},
		{"data-dir", text(func(c *Config) *string { return &c.Dir }), "The data directory; '${name}.etcd' when empty.", ""},
		{"wal-dir", text(func(c *Config) *string { return &c.WalDir }), "A directory for the log alone, as on a disk of its own; in the data directory when empty.", ""},
		{"snapshot-count", unsigned64(func(c *Config) *uint64 { return &c.SnapshotCount }), "Log entries between two checkpoints; etcd's default leaves the pace to the store.", ""},
		{"snapshot-catchup-entries", unsigned64(func(c *Config) *uint64 { return &c.SnapshotCatchUpCount }), "Log entries kept for slow members behind a checkpoint.", ""},
		{"heartbeat-interval", unsigned(func(c *Config) *uint { return &c.TickMs }), "Milliseconds between two heartbeats.", ""},
		{"election-timeout", unsigned(func(c *Config) *uint { return &c.ElectionMs }), "Milliseconds without a leader before an election.", ""},
		{"initial-election-tick-advance", boolean(func(c *Config) *bool { return &c.InitialElectionTickAdvance }), "Shorten the wait for the first election.", ""},
		{"listen-peer-urls", urls(func(c *Config) *[]url.URL { return &c.ListenPeerURLs }), "URLs to listen on for other members.", ""},
		{"listen-client-urls", urls(func(c *Config) *[]url.URL { return &c.ListenClientURLs }), "URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is set.", ""},
		{"listen-client-http-urls", urls(func(c *Config) *[]url.URL { return &c.ListenClientHTTPURLs }), "URLs to listen on for HTTP alone; takes HTTP off --listen-client-urls.", ""},
		{"max-snapshots", noUint(5), "Snapshot files to keep.", "there are no snapshot files to pile up"},
		{"max-wals", noUint(5), "Log files to keep.", "log files are recycled as soon as a checkpoint covers them"},
		{"memory-mlock", boolean(func(c *Config) *bool { return &c.MemoryMlock }), "Keep the memory of the process from being swapped; what is read of the database file stays the page cache's.", ""},
		{"quota-backend-bytes", signed64(func(c *Config) *int64 { return &c.QuotaBackendBytes }), "Bytes that live keys and leases may take up before what grows them is refused; 0: 2 GiB, below 0: no quota.", ""},
		{"backend-bbolt-freelist-type", noText(""), "The kind of free list in the database file: array or map.", "the database file always uses a map"},
		{"backend-batch-interval", noDuration(0), "The longest time between two commits to the database file.", ownCheckpoints},
		{"backend-batch-limit", noInt(0), "The most operations between two commits to the database file.", ownCheckpoints},
		{"max-txn-ops", unsigned(func(c *Config) *uint { return &c.MaxTxnOps }), "The most operations in a transaction.", ""},
		{"max-request-bytes", unsigned(func(c *Config) *uint { return &c.MaxRequestBytes }), "The largest request in bytes.", ""},
		{"max-concurrent-streams", value(func(c *Config) flag.Value { return uint32Value{&c.MaxConcurrentStreams} }), "The most calls under way on one connection.", ""},
		{"grpc-keepalive-min-time", duration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveMinTime }), "The shortest time between two pings of a client.", ""},
		{"grpc-keepalive-interval", duration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveInterval }), "The idle time after which a client is pinged; 0: never.", ""},
		{"grpc-keepalive-timeout", duration(func(c *Config) *time.Duration { return &c.GRPCKeepAliveTimeout }), "How long the answer to a ping may take; 0: no pings.", ""},
		{"socket-reuse-port", boolean(func(c *Config) *bool { return &c.SocketOpts.ReusePort }), "Set SO_REUSEPORT on the listening sockets.", ""},
		{"socket-reuse-address", boolean(func(c *Config) *bool { return &c.SocketOpts.ReuseAddress }), "Set SO_REUSEADDR on the listening sockets.", ""},
		{"enable-grpc-gateway", boolean(func(c *Config) *bool { return &c.EnableGRPCGateway }), "Serve the API as JSON, too.", ""},
		{"raft-read-timeout", noDuration(5 * time.Second), "The longest wait for data of a peer.", "peers that are gone are found by probes"},
		{"raft-write-timeout", noDuration(5 * time.Second), "The longest wait for a peer to take data.", "peers that are gone are found by probes"},
		{"feature-gates", value(func(c *Config) flag.Value { return c.Gates }), "Feature gates, as name=true|false,...:\n" + strings.Join(knownFeatures(), "\n"), ""},
	}
}

func clusterFlags() []flagDef {
	return []flagDef{
		{"initial-advertise-peer-urls", urls(func(c *Config) *[]url.URL { return &c.AdvertisePeerURLs }), "The URLs other members reach this one at.", ""},
		{"initial-cluster", text(func(c *Config) *string { return &c.InitialCluster }), "The members a new cluster starts with, as name=URL,...", ""},
		{"initial-cluster-state", choice(func(c *Config) *string { return &c.ClusterState }, clusterNew, clusterExisting), "'new' for a new cluster, 'existing' to join one.", ""},
		{"initial-cluster-token", text(func(c *Config) *string { return &c.InitialClusterToken }), "Keeps clusters with equal URLs apart.", ""},
		{"advertise-client-urls", urls(func(c *Config) *[]url.URL { return &c.AdvertiseClientURLs }), "The URLs clients reach this member at.", ""},
		{"strict-reconfig-check", boolean(func(c *Config) *bool { return &c.StrictReconfigCheck }), "Refuse changes of members that would cost the quorum.", ""},
		{"pre-vote", boolean(func(c *Config) *bool { return &c.PreVote }), "Ask before an election whether it can be won.", ""},
		{"auto-compaction-retention", text(func(c *Config) *string { return &c.AutoCompactionRetention }), "How much history automatic compaction keeps; 0: no automatic compaction.", ""},
		{"auto-compaction-mode", text(func(c *Config) *string { return &c.AutoCompactionMode }), "'periodic': the retention is a time, in hours without a unit; 'revision': a number of revisions.", ""},
		{"v2-deprecation", value(func(*Config) flag.Value {
			return choicesValue{[]string{"write-only", "write-only-skip-check", "write-only-drop-data", "gone"}}
		}), "The stage of the end of the v2 store.", "there is no v2 store"},
		{"max-learners", integer(func(c *Config) *int { return &c.MaxLearners }), "The most learners in the cluster.", ""},
	}
}

func discoveryFlags() []flagDef {
	return []flagDef{
		{"discovery-token", text(func(c *Config) *string { return &c.Discovery.Token }), "The token of the cluster to be found.", ""},
		{"discovery-endpoints", set(func(c *Config) *[]string { return &c.Discovery.Client.Endpoints }), "The discovery service.", ""},
		{"discovery-dial-timeout", duration(func(c *Config) *time.Duration { return &c.Discovery.Client.DialTimeout }), "The longest wait for a connection to it.", ""},
		{"discovery-request-timeout", duration(func(c *Config) *time.Duration { return &c.Discovery.Client.RequestTimeout }), "The longest wait for an answer of it.", ""},
		{"discovery-keepalive-time", duration(func(c *Config) *time.Duration { return &c.Discovery.Client.KeepAliveTime }), "The time between pings to it.", ""},
		{"discovery-keepalive-timeout", duration(func(c *Config) *time.Duration { return &c.Discovery.Client.KeepAliveTimeout }), "The longest wait for the answer to a ping.", ""},
		{"discovery-insecure-transport", boolean(func(c *Config) *bool { return &c.Discovery.Client.Secure.InsecureTransport }), "Connect to it without TLS.", ""},
		{"discovery-insecure-skip-tls-verify", boolean(func(c *Config) *bool { return &c.Discovery.Client.Secure.InsecureSkipVerify }), "Do not check its certificate.", ""},
		{"discovery-cert", text(func(c *Config) *string { return &c.Discovery.Client.Secure.Cert }), "The client certificate for it.", ""},
		{"discovery-key", text(func(c *Config) *string { return &c.Discovery.Client.Secure.Key }), "The key of the client certificate.", ""},
		{"discovery-cacert", text(func(c *Config) *string { return &c.Discovery.Client.Secure.CACert }), "The CA of its certificate.", ""},
		{"discovery-user", text(func(c *Config) *string { return &c.Discovery.Client.Auth.Username }), "The user name for it.", ""},
		{"discovery-password", text(func(c *Config) *string { return &c.Discovery.Client.Auth.Password }), "The password for it.", ""},
		{"discovery-fallback", choice(func(c *Config) *string { return &c.DiscoveryFallback }, "exit", "proxy"), "What to do when discovery fails.", ""},
		{"discovery-srv", text(func(c *Config) *string { return &c.DiscoverySRV }), "The DNS domain whose SRV records name the cluster.", ""},
		{"discovery-srv-name", text(func(c *Config) *string { return &c.DiscoverySRVName }), "The suffix of the service's name in DNS.", ""},
	}
}

func securityFlags() []flagDef {
	return []flagDef{
		{"cert-file", tlsText(clientSide, certFile), "The certificate shown to clients.", ""},
		{"key-file", tlsText(clientSide, keyFile), "Its key.", ""},
		{"client-cert-file", tlsText(clientSide, clientCertFile), "A certificate of its own for connections this member makes.", ""},
		{"client-key-file", tlsText(clientSide, clientKeyFile), "Its key.", ""},
		{"client-cert-auth", boolean(func(c *Config) *bool { return &c.ClientTLS.ClientCertAuth }), "Ask clients for a certificate.", ""},
		{"client-crl-file", tlsText(clientSide, crlFile), "The list of revoked client certificates.", ""},
		{"client-cert-allowed-hostname", list(func(c *Config) *[]string { return &c.ClientTLS.AllowedHostnames }), "Host names of which a client's certificate must have one.", ""},
		{"trusted-ca-file", tlsText(clientSide, trustedCAFile), "The CAs of client certificates.", ""},
		{"auto-tls", boolean(func(c *Config) *bool { return &c.ClientAutoTLS }), "Make a self-signed certificate for clients.", ""},
		{"self-signed-cert-validity", unsigned(func(c *Config) *uint { return &c.SelfSignedCertValidity }), "Years a self-signed certificate is valid.", ""},
		{"cipher-suites", list(func(c *Config) *[]string { return &c.CipherSuites }), "TLS cipher suites, best first; empty: Go's choice.", ""},
		{"tls-min-version", text(func(c *Config) *string { return &c.TLSMinVersion }), "The lowest version of TLS: TLS1.2 or TLS1.3.", ""},
		{"tls-max-version", text(func(c *Config) *string { return &c.TLSMaxVersion }), "The highest version of TLS; empty: Go's choice.", ""},
		{"cors", value(func(c *Config) flag.Value { return originsValue{&c.CORS} }), "Origins that browsers may call from; * or empty: all.", ""},
		{"host-whitelist", set(func(c *Config) *[]string { return &c.HostWhitelist }), "Host names that plain HTTP requests may be addressed to; * or empty: all.", ""},
	}
}

func peerSecurityFlags() []flagDef {
	return []flagDef{
		{"peer-cert-file", tlsText(peerSide, certFile), "The certificate shown to other members.", ""},
		{"peer-key-file", tlsText(peerSide, keyFile), "Its key.", ""},
		{"peer-client-cert-file", tlsText(peerSide, clientCertFile), "A certificate of its own for connections to other members.", ""},
		{"peer-client-key-file", tlsText(peerSide, clientKeyFile), "Its key.", ""},
		{"peer-client-cert-auth", boolean(func(c *Config) *bool { return &c.PeerTLS.ClientCertAuth }), "Ask other members for a certificate.", ""},
		{"peer-trusted-ca-file", tlsText(peerSide, trustedCAFile), "The CAs of their certificates.", ""},
		{"peer-crl-file", tlsText(peerSide, crlFile), "The list of revoked certificates of members.", ""},
		{"peer-cert-allowed-cn", list(func(c *Config) *[]string { return &c.PeerTLS.AllowedCNs }), "Common names of which a member's certificate must have one.", ""},
		{"peer-cert-allowed-hostname", list(func(c *Config) *[]string { return &c.PeerTLS.AllowedHostnames }), "Host names of which a member's certificate must have one.", ""},
		{"peer-auto-tls", boolean(func(c *Config) *bool { return &c.PeerAutoTLS }), "Make a self-signed certificate for other members.", ""},
		{"peer-skip-client-san-verification", boolean(func(c *Config) *bool { return &c.PeerSkipClientSAN }), "Do not check the names in a member's certificate against its address.", ""},
	}
}

func authFlags() []flagDef {
	return []flagDef{
		{"auth-token", text(func(c *Config) *string { return &c.AuthToken }), "The kind of token that logins get: 'simple', or 'jwt' with its options,\njwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=5m: METHOD is one of RS, PS, ES or HS with 256, 384 or 512, or EdDSA.", ""},
		{"bcrypt-cost", unsigned(func(c *Config) *uint { return &c.BcryptCost }), "The cost of hashing a password, 4 to 31: one more is twice the time.", ""},
		{"auth-token-ttl", unsigned(func(c *Config) *uint { return &c.AuthTokenTTL }), "Seconds a simple token is good for after its last use.", ""},
	}
}

func monitoringFlags() []flagDef {
	return []flagDef{
		{"enable-pprof", boolean(func(c *Config) *bool { return &c.EnablePprof }), `Serve profiles at /debug/pprof/ on the client URLs.`, ""},
		{"metrics", text(func(c *Config) *string { return &c.Metrics }), "'extensive' adds histograms of the calls' durations.", ""},
		{"listen-metrics-urls", urls(func(c *Config) *[]url.URL { return &c.ListenMetricsURLs }), "URLs to serve /metrics, /health, /livez and /readyz on, beside the client URLs; https uses the client certificate.", ""},
		{"enable-distributed-tracing", boolean(func(c *Config) *bool { return &c.EnableDistributedTracing }), "Send traces to an OpenTelemetry collector.", ""},
		{"distributed-tracing-address", text(func(c *Config) *string { return &c.DistributedTracingAddress }), "The collector of traces (OTLP over gRPC).", ""},
		{"distributed-tracing-service-name", text(func(c *Config) *string { return &c.DistributedTracingServiceName }), "The name of the service in traces, the same for all members.", ""},
		{"distributed-tracing-instance-id", text(func(c *Config) *string { return &c.DistributedTracingServiceInstanceID }), "The name of this member in traces.", ""},
		{"distributed-tracing-sampling-rate", integer(func(c *Config) *int { return &c.DistributedTracingSamplingRate }), "Of a million calls, how many are traced whose caller does not trace; what a caller traces always is.", ""},
	}
}

func loggingFlags() []flagDef {
	return []flagDef{
		{"logger", text(func(c *Config) *string { return &c.Logger }), "Only 'zap': the layout of the lines.", ""},
		{"log-outputs", set(func(c *Config) *[]string { return &c.LogOutputs }), "'stderr', 'stdout', 'systemd/journal', or files to append to.", ""},
		{"log-level", text(func(c *Config) *string { return &c.LogLevel }), "debug, info, warn, error, panic or fatal.", ""},
		{"log-format", text(func(c *Config) *string { return &c.LogFormat }), "json or console.", ""},
		{"enable-log-rotation", boolean(func(c *Config) *bool { return &c.EnableLogRotation }), "Rotate the file that is the one of --log-outputs.", ""},
		{"log-rotation-config-json", text(func(c *Config) *string { return &c.LogRotationConfigJSON }), "When to rotate it and what to keep: maxsize in MB, maxage in days, maxbackups; 0: no limit.", ""},
		{"warning-apply-duration", duration(func(c *Config) *time.Duration { return &c.WarningApplyDuration }), "How long applying an entry, or a read of keys, may take before it is logged.", ""},
		{"warning-unary-request-duration", duration(func(c *Config) *time.Duration { return &c.WarningUnaryRequestDuration }), "How long a call may take before it is logged.", ""},
	}
}

func featureFlags() []flagDef {
	return []flagDef{
		{"watch-progress-notify-interval", duration(func(c *Config) *time.Duration { return &c.WatchProgressNotifyInterval }), "The time between two progress notifications to a watcher; 0: 10m.", ""},
		{"corrupt-check-time", duration(func(c *Config) *time.Duration { return &c.CorruptCheckTime }), "The time between two comparisons of all the members hold; 0: never. Hashes of what they did are compared always.", ""},
		{"compact-hash-check-time", duration(func(c *Config) *time.Duration { return &c.CompactHashCheckTime }), "With the feature gate CompactHashCheck: how often to compare all the members hold, if there was a compaction.", ""},
		{"compaction-batch-limit", noInt(0), "The most revisions removed in one step of a compaction.", "compaction runs in small steps between writes"},
		{"compaction-sleep-interval", noDuration(0), "The pause between two steps of a compaction.", "compaction runs in small steps between writes"},
		{"downgrade-check-time", noDuration(5 * time.Second), "The time between two checks of a downgrade.", "there is nothing to check: members are of one version"},
		{"bootstrap-defrag-threshold-megabytes", unsigned(func(c *Config) *uint { return &c.BootstrapDefragThresholdMegabytes }), "Defragment behind a start if it frees that many MiB; 0: never for that reason.", ""},
	}
}

// upkeepFlags are our own.
func upkeepFlags() []flagDef {
	return []flagDef{
		{"profile", choice(func(c *Config) *string { return &c.Profile }, "", profileEdge), "'edge': for little memory and a slow disk; sets what docs/edge.md lists, but for what is set explicitly.", ""},
		{"auto-defrag", boolean(func(c *Config) *bool { return &c.AutoDefrag }), "Defragment the database file while serving, when it gives much back and pages have been free for a while.", ""},
		{"memory-limit", size(func(c *Config) *int64 { return &c.MemoryLimit }), "Bytes the process may use, as 1GiB; values that do not fit are read from the database. 0: the limit of the cgroup, or half of the machine's memory.", ""},
		{"history-bytes", size(func(c *Config) *int64 { return &c.HistoryBytes }), "Bytes of superseded versions in memory, as 64MiB; more are written to the database before the next compaction and read from there. 0: an eighth of the memory limit.", ""},
	}
}

func unsafeFlags() []flagDef {
	return []flagDef{
		{"force-new-cluster", boolean(func(c *Config) *bool { return &c.ForceNewCluster }), "Start as the only member of a cluster that had more.", ""},
		{"unsafe-no-fsync", noBool(false), "Do not wait for the disk.", "what is acknowledged is always on the disk"},
	}
}
