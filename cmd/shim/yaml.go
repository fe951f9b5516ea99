package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubeshim/shim/pkg/etcdapi"
)

// configYAML is etcd's configuration file: the fields of Config under the flags'
// names, and those whose form differs. Durations are nanoseconds, as in etcd. The
// names of these types are part of etcd's errors.
type configYAML struct {
	*Config
	configJSON
}

type configJSON struct {
	ListenPeerURLs       string `json:"listen-peer-urls"`
	ListenClientURLs     string `json:"listen-client-urls"`
	ListenClientHTTPURLs string `json:"listen-client-http-urls"`
	AdvertisePeerURLs    string `json:"initial-advertise-peer-urls"`
	AdvertiseClientURLs  string `json:"advertise-client-urls"`

	CORS          string `json:"cors"`
	HostWhitelist string `json:"host-whitelist"`
	FeatureGates  string `json:"feature-gates"`

	ClientSecurity securityConfig `json:"client-transport-security"`
	PeerSecurity   securityConfig `json:"peer-transport-security"`
}

// securityConfig is the TLS side of one kind of listener. crl-file is ours: etcd
// has no place for its --client-crl-file in the file.
type securityConfig struct {
	CertFile            string   `json:"cert-file"`
	KeyFile             string   `json:"key-file"`
	ClientCertFile      string   `json:"client-cert-file"`
	ClientKeyFile       string   `json:"client-key-file"`
	CertAuth            bool     `json:"client-cert-auth"`
	TrustedCAFile       string   `json:"trusted-ca-file"`
	AutoTLS             bool     `json:"auto-tls"`
	AllowedCNs          []string `json:"allowed-cn"`
	AllowedHostnames    []string `json:"allowed-hostname"`
	SkipClientSANVerify bool     `json:"skip-client-san-verification"`
	CRLFile             string   `json:"crl-file"`
}

func (s securityConfig) options() etcdapi.TLSOptions {
	return etcdapi.TLSOptions{
		CertFile: s.CertFile, KeyFile: s.KeyFile,
		ClientCertFile: s.ClientCertFile, ClientKeyFile: s.ClientKeyFile,
		ClientCertAuth: s.CertAuth, TrustedCAFile: s.TrustedCAFile, CRLFile: s.CRLFile,
		AllowedCNs: s.AllowedCNs, AllowedHostnames: s.AllowedHostnames,
	}
}

// loadFile reads a configuration file over c, which holds the defaults.
func (c *Config) loadFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return c.loadYAML(data)
}

func (c *Config) loadYAML(data []byte) error {
	defaultCluster := c.InitialCluster
	f := configYAML{Config: c}
	if err := yaml.Unmarshal(data, &f); err != nil {
		return err
	}
	if err := checkInertYAML(data); err != nil {
		return err
	}
	var keys map[string]any
	if err := yaml.Unmarshal(data, &keys); err != nil {
		return err
	}
	c.noteKeys(keys)
	err := f.apply()
	if (c.DiscoverySRV != "" || c.discovers()) && c.InitialCluster == defaultCluster {
		c.InitialCluster = ""
	}
	if c.SelfSignedCertValidity == 0 {
		c.SelfSignedCertValidity = 1
	}
	return err
}

// checkInertYAML is an error if a setting without a field in Config has a value of
// another type than etcd takes.
func checkInertYAML(data []byte) error {
	type V2DeprecationEnum string
	type Config struct {
		AuthToken               string            `json:"auth-token"`
		BcryptCost              uint              `json:"bcrypt-cost"`
		AuthTokenTTL            uint              `json:"auth-token-ttl"`
		EnableGRPCGateway       bool              `json:"enable-grpc-gateway"`
		MaxSnapFiles            uint              `json:"max-snapshots"`
		MaxWalFiles             uint              `json:"max-wals"`
		BackendBatchInterval    time.Duration     `json:"backend-batch-interval"`
		BackendBatchLimit       int               `json:"backend-batch-limit"`
		BackendFreelistType     string            `json:"backend-bbolt-freelist-type"`
		CompactionBatchLimit    int               `json:"compaction-batch-limit"`
		CompactionSleepInterval time.Duration     `json:"compaction-sleep-interval"`
		DowngradeCheckTime      time.Duration     `json:"downgrade-check-time"`
		UnsafeNoFsync           bool              `json:"unsafe-no-fsync"`
		V2Deprecation           V2DeprecationEnum `json:"v2-deprecation"`
	}
	type configYAML struct{ Config }
	return yaml.Unmarshal(data, &configYAML{})
}

// apply brings over what has another form in the file.
func (f *configYAML) apply() error {
	c := f.Config
	var errs []error
	for _, u := range []struct {
		name, text string
		to         *[]url.URL
	}{
		{"listen-peer-urls", f.configJSON.ListenPeerURLs, &c.ListenPeerURLs},
		{"listen-client-urls", f.configJSON.ListenClientURLs, &c.ListenClientURLs},
		{"listen-client-http-urls", f.configJSON.ListenClientHTTPURLs, &c.ListenClientHTTPURLs},
		{"listen-metrics-urls", f.Config.ListenMetricsJSON, &c.ListenMetricsURLs},
		{"initial-advertise-peer-urls", f.configJSON.AdvertisePeerURLs, &c.AdvertisePeerURLs},
		{"advertise-client-urls", f.configJSON.AdvertiseClientURLs, &c.AdvertiseClientURLs},
	} {
		if u.text == "" {
			continue
		}
		urls, err := parseURLs(u.text)
		if err != nil {
			errs = append(errs, fmt.Errorf("unexpected error setting up %s: %w", u.name, err))
			continue
		}
		*u.to = urls
	}
	if f.configJSON.CORS != "" {
		if err := (originsValue{&c.CORS}).Set(f.configJSON.CORS); err != nil {
			errs = append(errs, fmt.Errorf("unexpected error setting up cors: %w", err))
		}
	}
	if f.configJSON.HostWhitelist != "" {
		c.HostWhitelist = splitSet(f.configJSON.HostWhitelist)
	}
	if err := c.Gates.Set(f.configJSON.FeatureGates); err != nil {
		errs = append(errs, err)
	}
	c.ClientTLS, c.ClientAutoTLS = f.configJSON.ClientSecurity.options(), f.configJSON.ClientSecurity.AutoTLS
	c.PeerTLS, c.PeerAutoTLS, c.PeerSkipClientSAN = f.configJSON.PeerSecurity.options(), f.configJSON.PeerSecurity.AutoTLS, f.configJSON.PeerSecurity.SkipClientSANVerify
	return errors.Join(errs...)
}

// noteKeys remembers what the file sets, under the names of the flags, and
// tells about keys that are no setting at all.
func (c *Config) noteKeys(keys map[string]any) {
	known := map[string]bool{"socket-options": true, "discovery-config": true,
		"client-transport-security": true, "peer-transport-security": true}
	for _, g := range flagTable() {
		for _, f := range g.flags {
			known[f.name] = true
		}
	}
	var unknown []string
	for k, v := range keys {
		c.explicit[k] = true
		if !known[k] {
			unknown = append(unknown, k)
		}
		section, ok := v.(map[string]any)
		if !ok {
			continue
		}
		prefix, _, isTLS := strings.Cut(k, "-transport-security")
		for name := range section {
			if isTLS && prefix == "peer" {
				c.explicit["peer-"+name] = true
			}
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		c.warn("unknown settings in the configuration file: %s", strings.Join(unknown, ", "))
	}
}
