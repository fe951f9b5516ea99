package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFlagsAreEtcds compares names, defaults and whether a value is needed with
// those of etcd 3.7.3, and with those we have beside them.
func TestFlagsAreEtcds(t *testing.T) {
	data, err := os.ReadFile("testdata/etcd-3.7.3-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("testdata/own-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(data))+"\n"+strings.TrimSpace(string(own)), "\n")
	var got []string
	newFlagSet(DefaultConfig(), &command{}).VisitAll(func(f *flag.Flag) {
		line := fmt.Sprintf("%s %q", f.Name, f.DefValue)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			line += " bool"
		}
		got = append(got, line)
	})
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("there should be the flag %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("neither etcd nor own-flags.txt has the flag %s", g)
		}
	}
}

// TestInertFlagsWarnOnce sets every flag without a meaning, in each of the three
// ways, and counts the warnings.
func TestInertFlagsWarnOnce(t *testing.T) {
	valueOf := map[string]string{"v2-deprecation": "gone", "discovery-token": "x", "discovery-endpoints": "http://a:1", "discovery-srv": "a"}
	for name := range inertFlags() {
		value := valueOf[name]
		if value == "" {
			value = newFlagSet(DefaultConfig(), &command{}).Lookup(name).DefValue
		}
		ways := map[string]*Config{}
		ways["flag"], _, _ = parse([]string{"--" + name + "=" + value}, nil)
		if value != "" {
			ways["environment"], _, _ = parse(nil, []string{flagEnv(name) + "=" + value})
		}
		for way, c := range ways {
			n := 0
			for _, w := range c.warnings {
				if strings.HasPrefix(w, "--"+name+" has no effect: ") {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s by %s: %d warnings in %q", name, way, n, c.warnings)
			}
		}
	}
	c, _, _ := parse(nil, nil)
	for _, w := range c.warnings {
		if strings.Contains(w, "no effect") {
			t.Errorf("without a flag: %s", w)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"--nosuch":     "flag provided but not defined: -nosuch",
		"--max-wals=x": `invalid value "x" for flag -max-wals: parse error`,
		"--listen-client-urls=http://127.0.0.1:1/p": `invalid value "http://127.0.0.1:1/p" for flag -listen-client-urls: URL must not contain a path: http://127.0.0.1:1/p`,
		"--listen-client-urls=127.0.0.1:1":          `invalid value "127.0.0.1:1" for flag -listen-client-urls: parse "127.0.0.1:1": first path segment in URL cannot contain colon`,
		"--listen-peer-urls=http://a":               `invalid value "http://a" for flag -listen-peer-urls: URL address does not have the form "host:port": http://a`,
		"--listen-peer-urls=tcp://a:1":              `invalid value "tcp://a:1" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: tcp://a:1`,
		"--initial-cluster-state=old":               `invalid value "old" for flag -initial-cluster-state: invalid value`,
		"--feature-gates=Foo=true":                  `invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo`,
		"--feature-gates=LeaseCheckpoint":           `invalid value "LeaseCheckpoint" for flag -feature-gates: missing bool value for LeaseCheckpoint`,
		"--max-concurrent-streams=-1":               `invalid value "-1" for flag -max-concurrent-streams: strconv.ParseUint: parsing "-1": invalid syntax`,
		"--v2-deprecation=never":                    `invalid value "never" for flag -v2-deprecation: invalid value "never"`,
		"--history-bytes=64 cows":                   `invalid value "64 cows" for flag -history-bytes: "64 cows" is not a number of bytes, as 64MiB`,
		"--history-bytes=-1":                        `invalid value "-1" for flag -history-bytes: "-1" is not a number of bytes, as 64MiB`,
		"--enable-pprof=maybe":                      `invalid boolean value "maybe" for -enable-pprof: parse error`,
	} {
		_, _, err := parse([]string{args}, nil)
		var bad errUsage
		if !errors.As(err, &bad) || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for arg, want := range map[string]int64{"0": 0, "1048576": 1 << 20, "64MiB": 64 << 20, "1.5 GiB": 3 << 29, "10kB": 10000, "7B": 7} {
		if c, _, err := parse([]string{"--history-bytes=" + arg}, nil); err != nil || c.HistoryBytes != want {
			t.Errorf("%s: %d bytes, %v", arg, c.HistoryBytes, err)
		}
	}
}

func TestFlagsOfKubeadm(t *testing.T) {
	c, _, err := parse([]string{
		"--advertise-client-urls=https://10.0.0.1:2379",
		"--cert-file=/etc/kubernetes/pki/etcd/server.crt",
		"--client-cert-auth=true",
		"--data-dir=/var/lib/etcd",
		"--feature-gates=InitialCorruptCheck=true",
		"--initial-advertise-peer-urls=https://10.0.0.1:2380",
		"--initial-cluster=node1=https://10.0.0.1:2380",
		"--key-file=/etc/kubernetes/pki/etcd/server.key",
		"--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
		"--listen-metrics-urls=http://127.0.0.1:2381",
		"--listen-peer-urls=https://10.0.0.1:2380",
		"--name=node1",
		"--peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt",
		"--peer-client-cert-auth=true",
		"--peer-key-file=/etc/kubernetes/pki/etcd/peer.key",
		"--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
		"--snapshot-count=10000",
		"--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
		"--watch-progress-notify-interval=5s",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.warnings) != 0 {
		t.Errorf("warnings: %q", c.warnings)
	}
	if !c.ClientTLS.ClientCertAuth || !c.PeerTLS.ClientCertAuth || c.WatchProgressNotifyInterval != 5*time.Second || len(c.ListenClientURLs) != 2 {
		t.Errorf("not understood: %+v", c)
	}
}

func TestSingleAndDoubleDash(t *testing.T) {
	for _, args := range [][]string{{"-name", "x"}, {"--name", "x"}, {"-name=x"}, {"--name=x"}} {
		if c, _, err := parse(args, nil); err != nil || c.Name != "x" {
			t.Errorf("%q: name %q, %v", args, c.Name, err)
		}
	}
}
