package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kubeshim/shim/pkg/etcdapi"
)

// fileConfig is etcd's configuration file: the fields of Config under the
// flags' names, and those whose form differs. Durations are nanoseconds, as in
// etcd.
type fileConfig struct {
	*Config

	ListenPeerURLs       string `json:"listen-peer-urls"`
	ListenClientURLs     string `json:"listen-client-urls"`
	ListenClientHTTPURLs string `json:"listen-client-http-urls"`
	ListenMetricsURLs    string `json:"listen-metrics-urls"`
	AdvertisePeerURLs    string `json:"initial-advertise-peer-urls"`
	AdvertiseClientURLs  string `json:"advertise-client-urls"`

	CORS          string `json:"cors"`
	HostWhitelist string `json:"host-whitelist"`
	FeatureGates  string `json:"feature-gates"`

	ClientSecurity fileSecurity `json:"client-transport-security"`
	PeerSecurity   fileSecurity `json:"peer-transport-security"`
}

// fileSecurity is the TLS side of one kind of listener. crl-file is ours: etcd
// has no place for its --client-crl-file in the file.
type fileSecurity struct {
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

func (s fileSecurity) options() etcdapi.TLSOptions {
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
	f := fileConfig{Config: c}
	if err := yaml.Unmarshal(data, &f); err != nil {
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

// apply brings over what has another form in the file.
func (f *fileConfig) apply() error {
	c := f.Config
	var errs []error
	for _, u := range []struct {
		name, text string
		to         *[]url.URL
	}{
		{"listen-peer-urls", f.ListenPeerURLs, &c.ListenPeerURLs},
		{"listen-client-urls", f.ListenClientURLs, &c.ListenClientURLs},
		{"listen-client-http-urls", f.ListenClientHTTPURLs, &c.ListenClientHTTPURLs},
		{"listen-metrics-urls", f.ListenMetricsURLs, &c.ListenMetricsURLs},
		{"initial-advertise-peer-urls", f.AdvertisePeerURLs, &c.AdvertisePeerURLs},
		{"advertise-client-urls", f.AdvertiseClientURLs, &c.AdvertiseClientURLs},
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
	if f.CORS != "" {
		if err := (originsValue{&c.CORS}).Set(f.CORS); err != nil {
			errs = append(errs, fmt.Errorf("unexpected error setting up cors: %w", err))
		}
	}
	if f.HostWhitelist != "" {
		c.HostWhitelist = splitSet(f.HostWhitelist)
	}
	if err := c.Gates.Set(f.FeatureGates); err != nil {
		errs = append(errs, err)
	}
	c.ClientTLS, c.ClientAutoTLS = f.ClientSecurity.options(), f.ClientSecurity.AutoTLS
	c.PeerTLS, c.PeerAutoTLS, c.PeerSkipClientSAN = f.PeerSecurity.options(), f.PeerSecurity.AutoTLS, f.PeerSecurity.SkipClientSANVerify
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
