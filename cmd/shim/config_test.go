package main

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/compact"
)

func TestDefaults(t *testing.T) {
	c, _, err := parse(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Dir != "default.etcd" || c.InitialCluster != "default=http://localhost:2380" ||
		joinURLs(c.ListenClientURLs) != "http://localhost:2379" || joinURLs(c.AdvertiseClientURLs) != "http://localhost:2379" ||
		joinURLs(c.ListenPeerURLs) != "http://localhost:2380" || c.MaxConcurrentStreams != math.MaxUint32 {
		t.Errorf("defaults: %+v", c)
	}
}

func TestNameRenamesDefaultCluster(t *testing.T) {
	for _, tc := range []struct{ args, cluster string }{
		{"--name=a", "a=http://localhost:2380"},
		{"--name=a --initial-advertise-peer-urls=http://10.0.0.1:2380,http://10.0.0.2:2380", "a=http://10.0.0.1:2380,a=http://10.0.0.2:2380"},
		{"--name=a --initial-cluster=a=http://b:1", "a=http://b:1"},
		{"--initial-advertise-peer-urls=http://10.0.0.1:2380", "default=http://localhost:2380"},
	} {
		c, _, err := parse(strings.Fields(tc.args), nil)
		if err != nil || c.InitialCluster != tc.cluster {
			t.Errorf("%s: %q, want %q (%v)", tc.args, c.InitialCluster, tc.cluster, err)
		}
	}
}

func TestListeningEverywhereAdvertisesTheHost(t *testing.T) {
	host, err := defaultHost()
	if err != nil {
		host = "localhost" // without a route the default stays
	}
	c, _, err := parse(strings.Fields("--name=a --listen-peer-urls=http://0.0.0.0:12380"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "http://" + host + ":12380"
	if host == "localhost" {
		want = peerURLDefault
	}
	if got := joinURLs(c.AdvertisePeerURLs); got != want || c.InitialCluster != "a="+want {
		t.Errorf("advertised %s, cluster %s, want %s", got, c.InitialCluster, want)
	}
}

func TestEnvironment(t *testing.T) {
	c, _, err := parse([]string{"--name=flag"}, []string{
		"ETCD_DATA_DIR=/d", "ETCD_ENABLE_PPROF=true", "ETCD_NOSUCH=1", "ETCD_VERSION=3.5", "ETCD_MAX_TXN_OPS=", "HOME=/root",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "flag" || c.Dir != "/d" || !c.EnablePprof || c.MaxTxnOps != 128 {
		t.Errorf("not understood: %+v", c)
	}
	for _, want := range []string{"unrecognized environment variable ETCD_NOSUCH=1", "unrecognized environment variable ETCD_VERSION=3.5"} {
		if !slices.Contains(c.warnings, want) {
			t.Errorf("no %q in %q", want, c.warnings)
		}
	}
	if !slices.Contains(c.notes, "recognized and used environment variable ETCD_DATA_DIR=/d") {
		t.Errorf("notes: %q", c.notes)
	}
}

func TestEnvironmentConflictsAndErrorsAreAllReported(t *testing.T) {
	_, _, err := parse([]string{"--name=flag"}, []string{"ETCD_NAME=env", "ETCD_MAX_WALS=x", "ETCD_MAX_SNAPSHOTS=y"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`conflicting environment variable "ETCD_NAME" is shadowed by corresponding command-line flag (either unset environment variable or disable flag)`,
		`invalid value "x" for ETCD_MAX_WALS: parse error`,
		`invalid value "y" for ETCD_MAX_SNAPSHOTS: parse error`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: lacks %s", err, want)
		}
	}
}

// TestValidateReportsEverything: one run shows all that is wrong.
func TestValidateReportsEverything(t *testing.T) {
	for args, wants := range map[string][]string{
		"--listen-client-urls=http://127.0.0.1:1":                                              {"--advertise-client-urls is required when --listen-client-urls is set explicitly"},
		"--listen-peer-urls=http://example.com:1 --logger=glog --log-level=loud":               {"expected IP in URL for binding (http://example.com:1)", `unknown logger option "glog"`, `unrecognized level: "loud"`},
		"--heartbeat-interval=0 --auto-compaction-mode=x --log-format=xml":                     {"--heartbeat-interval must be >0 (set to 0ms)", `unknown auto-compaction-mode "x"`, "unknown log format: xml, supported values json, console"},
		"--election-timeout=100":                                                               {"--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]"},
		"--compact-hash-check-time=0":                                                          {"--compact-hash-check-time must be >0 (set to 0s)"},
		"--election-timeout=60000":                                                             {"--election-timeout[60000ms] is too long, and should be set less than 50000ms"},
		"--tls-min-version=TLS1.3 --cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA":                {"cipher suites cannot be configured when only TLS1.3 is enabled"},
		"--tls-min-version=TLS1.3 --tls-max-version=TLS1.2":                                    {"min version (TLS1.3) is greater than max version (TLS1.2)"},
		"--tls-min-version=TLS1.1 --cipher-suites=NOPE":                                        {`unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)`, `unexpected TLS cipher suite "NOPE"`},
		"--discovery-srv=x --initial-cluster=default=http://localhost:2380":                    {"multiple discovery or bootstrap flags are set"},
		"--discovery-token=x":                                                                  {"both --discovery-token and --discovery-endpoints must be set"},
		"--discovery-fallback=proxy":                                                           {`v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`},
		"--feature-gates=LeaseCheckpointPersist=true":                                          {"enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"},
		"--initial-advertise-peer-urls=http://:2380":                                           {`--initial-advertise-peer-urls "http://:2380" must be "host:port" (unexpected empty host (http://:2380))`},
		"--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1": {"TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme"},
		"--log-outputs=default,stdout":                                                         {`multi logoutput for "default" is not supported yet`},
		"serve-me":                                                                             {`"serve-me" is not a valid flag`},
	} {
		_, _, err := parse(strings.Fields(args), nil)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v lacks %s", args, err, want)
			}
		}
	}
}

func TestConfigFile(t *testing.T) {
	c, _, err := parse([]string{"--name=ignored", "--config-file=testdata/etcd.yaml"}, []string{"ETCD_NAME=ignored", "ETCD_DATA_DIR=/ignored"})
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]bool{
		"name":         c.Name == "infra1" && c.Dir == "/var/lib/etcd",
		"numbers":      c.SnapshotCount == 5000 && c.TickMs == 50 && c.ElectionMs == 500 && c.QuotaBackendBytes == 8<<30,
		"peer urls":    joinURLs(c.ListenPeerURLs) == "https://10.0.0.1:2380" && joinURLs(c.AdvertisePeerURLs) == "https://10.0.0.1:2380",
		"client urls":  joinURLs(c.ListenClientURLs) == "https://10.0.0.1:2379,https://127.0.0.1:2379" && joinURLs(c.AdvertiseClientURLs) == "https://10.0.0.1:2379",
		"http urls":    joinURLs(c.ListenClientHTTPURLs) == "https://127.0.0.1:2382" && joinURLs(c.ListenMetricsURLs) == "http://127.0.0.1:2381",
		"cluster":      c.InitialCluster == "infra1=https://10.0.0.1:2380" && c.InitialClusterToken == "tkn" && c.ClusterState == "existing",
		"browsers":     slices.Equal(c.CORS, []string{"http://a.example:80"}) && slices.Equal(c.HostWhitelist, []string{"a.example", "b.example"}),
		"limits":       c.MaxTxnOps == 256 && c.MaxRequestBytes == 3<<20 && c.MaxConcurrentStreams == 1000,
		"wal-dir":      c.WalDir == "/var/lib/etcd-wal",
		"durations":    c.GRPCKeepAliveInterval == time.Hour && c.WatchProgressNotifyInterval == 5*time.Second && c.WarningUnaryRequestDuration == 300*time.Millisecond,
		"socket":       c.SocketOpts.ReusePort && c.SocketOpts.ReuseAddress,
		"client tls":   c.ClientTLS.CertFile == "/pki/server.crt" && c.ClientTLS.ClientCertAuth && c.ClientTLS.CRLFile == "/pki/ca.crl" && slices.Equal(c.ClientTLS.AllowedHostnames, []string{"apiserver.example"}),
		"peer tls":     c.PeerTLS.KeyFile == "/pki/peer.key" && slices.Equal(c.PeerTLS.AllowedCNs, []string{"peer1", "peer2"}),
		"tls versions": c.ClientTLS.MinVersion == 0x303 && c.PeerTLS.MaxVersion == 0x304 && len(c.ClientTLS.CipherSuites) == 1,
		"validity":     c.SelfSignedCertValidity == 1,
		"gates":        c.Gates["InitialCorruptCheck"] && c.Gates["CompactHashCheck"],
		"other":        c.EnablePprof && c.LogLevel == "debug" && c.AutoCompactionMode == "revision",
	}
	for what, ok := range checks {
		if !ok {
			t.Errorf("%s: not understood: %+v", what, c)
		}
	}
	want := []string{
		"unknown settings in the configuration file: no-such-setting",
		"--max-wals has no effect: log files are recycled as soon as a checkpoint covers them",
	}
	if !slices.Equal(c.warnings, want) {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(c.warnings, "\n"), strings.Join(want, "\n"))
	}
}

func TestConfigFileErrors(t *testing.T) {
	for content, want := range map[string]string{
		"name: [":             "yaml",
		"max-txn-ops: many":   "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.max-txn-ops of type uint",
		"max-snapshots: x":    "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.max-snapshots of type uint",
		"listen-peer-urls: 5": "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.configJSON.listen-peer-urls of type string",
		"peer-transport-security: {cert-file: 5}": "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field securityConfig.configJSON.peer-transport-security.cert-file of type string",
		"log-outputs: 5":                                     "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.Config.log-outputs of type []string",
		"logger: capnslog":                                   "--logger=capnslog is removed in v3.5",
		"log-outputs: [systemd/journal, stderr]":             `running with systemd/journal but other '--log-outputs' values (["systemd/journal" "stderr"]) are configured with 'default'; override 'default' value with something else`,
		"enable-log-rotation: true":                          "--log-outputs requires a single file path when --log-rotate-config-json is defined",
		"{enable-log-rotation: true, log-outputs: [/l, /m]}": "--log-outputs requires a single file path when --log-rotate-config-json is defined",
		`{enable-log-rotation: true, log-outputs: [/l], log-rotation-config-json: "{"}`:                    "improperly formatted log rotation config: unexpected end of JSON input",
		`{enable-log-rotation: true, log-outputs: [/l], log-rotation-config-json: "{\"maxsize\": \"a\"}"}`: "invalid log rotation config: json: cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of type int",
		"{enable-distributed-tracing: true, distributed-tracing-sampling-rate: -1}":                        "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
		"{enable-distributed-tracing: true, distributed-tracing-sampling-rate: 1000001}":                   "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
		"listen-peer-urls: ftp://1.2.3.4:1":                                                                "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: ftp://1.2.3.4:1",
		"feature-gates: Foo=true":                                                                          "unrecognized feature gate: Foo",
		"watch-progress-notify-interval: 5s":                                                               "cannot unmarshal string into Go struct field",
		"initial-cluster-state: old":                                                                       `unexpected clusterState "old"`,
	} {
		path := filepath.Join(t.TempDir(), "etcd.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := parse([]string{"--config-file", path}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", content, err, want)
		}
	}
	if _, _, err := parse(nil, []string{"ETCD_CONFIG_FILE=/nonexistent/etcd.yaml"}); err == nil || !strings.Contains(err.Error(), "/nonexistent/etcd.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

func TestCompactionRetention(t *testing.T) {
	for _, tc := range []struct {
		args string
		want compact.Options
	}{
		{"", compact.Options{Mode: compact.ModePeriodic}},
		{"--auto-compaction-retention=1", compact.Options{Mode: compact.ModePeriodic, Period: time.Hour}},
		{"--auto-compaction-retention=5m", compact.Options{Mode: compact.ModePeriodic, Period: 5 * time.Minute}},
		{"--auto-compaction-retention=1000 --auto-compaction-mode=revision", compact.Options{Mode: compact.ModeRevision, Keep: 1000}},
	} {
		c, _, err := parse(strings.Fields(tc.args), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.compaction(); err != nil || got != tc.want {
			t.Errorf("%s: %+v %v, want %+v", tc.args, got, err, tc.want)
		}
	}
}

// settingSamples are values for settings of the configuration file by their type,
// or by their name.
var settingSamples = map[string]string{
	"string": `"x"`, "bool": "true", "[]string": "[x]", "uint": "1", "uint32": "1", "uint64": "1", "int": "1", "int64": "1", "time.Duration": "1",
	"securityConfig": "{}", "transport.SocketOpts": "{}", "v3discovery.DiscoveryConfig": "{}", "config.V2DeprecationEnum": `"gone"`,
	"feature-gates": "InitialCorruptCheck=true", "cors": "http://a:1",
}

// TestEverySettingOfTheFile: the configuration file may have each setting of etcd's,
// by its name.
func TestEverySettingOfTheFile(t *testing.T) {
	list, err := os.ReadFile("testdata/etcd-3.7.3-settings.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(list)) {
		name, typ, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "#" {
			continue
		}
		n++
		sample := settingSamples[name]
		if sample == "" {
			sample = settingSamples[typ]
		}
		if strings.HasSuffix(name, "-urls") {
			sample = "http://127.0.0.1:1"
		}
		c := DefaultConfig()
		if err := c.loadYAML([]byte(name + ": " + sample)); err != nil || sample == "" {
			t.Errorf("%s: %s: %v", name, sample, err)
		}
		if len(c.warnings) > 0 || !c.explicit[name] {
			t.Errorf("%s: %q", name, c.warnings)
		}
	}
	if n < 70 {
		t.Errorf("only %d settings", n)
	}
}

// TestEveryFlagHasAVariable sets each flag by its variable.
func TestEveryFlagHasAVariable(t *testing.T) {
	samples := map[string]string{"v2-deprecation": "gone", "profile": "edge", "discovery-endpoints": "http://a:1", "initial-cluster-state": "existing"}
	newFlagSet(DefaultConfig(), &command{}).VisitAll(func(f *flag.Flag) {
		value := f.DefValue
		switch {
		case samples[f.Name] != "":
			value = samples[f.Name]
		case strings.HasSuffix(f.Name, "-urls"):
			value = "http://127.0.0.1:1"
		case value == "":
			value = "1"
		}
		if f.Name == "config-file" || f.Name == "version" || f.Name == "feature-gates" {
			return // no setting, told apart, or not a number
		}
		c, _, _ := parse(nil, []string{flagEnv(f.Name) + "=" + value})
		if !c.explicit[f.Name] {
			t.Errorf("%s=%s sets nothing: %q", flagEnv(f.Name), value, c.warnings)
		}
	})
}
