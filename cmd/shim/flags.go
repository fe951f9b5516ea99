package main

import (
	"flag"
	"io"
	"net/url"
	"time"

	"github.com/kubeshim/shim/pkg/etcdapi"
)

// flagDef is one flag. Its default is what DefaultConfig holds, so the table
// and the configuration cannot disagree.
type flagDef struct {
	name  string
	bind  binder
	usage string
	// inert is why the flag means nothing here (yet); it is accepted, and setting
	// it is answered with one warning. "" for a flag that does what it says.
	inert string
}

// flagGroup is a section of --help.
type flagGroup struct {
	title string
	flags []flagDef
}

// binder adds a flag to a set, for a field of c.
type binder func(fs *flag.FlagSet, c *Config, name, usage string)

func text(f func(*Config) *string) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.StringVar(f(c), n, *f(c), u) }
}

func boolean(f func(*Config) *bool) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.BoolVar(f(c), n, *f(c), u) }
}

func integer(f func(*Config) *int) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.IntVar(f(c), n, *f(c), u) }
}

func unsigned(f func(*Config) *uint) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.UintVar(f(c), n, *f(c), u) }
}

func unsigned64(f func(*Config) *uint64) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.Uint64Var(f(c), n, *f(c), u) }
}

func signed64(f func(*Config) *int64) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.Int64Var(f(c), n, *f(c), u) }
}

func size(f func(*Config) *int64) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.Var(bytesValue{f(c)}, n, u) }
}

func duration(f func(*Config) *time.Duration) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.DurationVar(f(c), n, *f(c), u) }
}

func value(f func(*Config) flag.Value) binder {
	return func(fs *flag.FlagSet, c *Config, n, u string) { fs.Var(f(c), n, u) }
}

func urls(f func(*Config) *[]url.URL) binder {
	return value(func(c *Config) flag.Value { return urlsValue{f(c)} })
}

func set(f func(*Config) *[]string) binder {
	return value(func(c *Config) flag.Value { return setValue{f(c)} })
}

func list(f func(*Config) *[]string) binder {
	return value(func(c *Config) flag.Value { return listValue{f(c)} })
}

func choice(f func(*Config) *string, words ...string) binder {
	return value(func(c *Config) flag.Value { return choiceValue{f(c), words} })
}

// The binders of inert flags: the value is parsed and forgotten.
func noText(def string) binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.String(n, def, u) }
}

func noBool(def bool) binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.Bool(n, def, u) }
}

func noUint(def uint) binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.Uint(n, def, u) }
}

func noInt(def int) binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.Int(n, def, u) }
}

func noDuration(def time.Duration) binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.Duration(n, def, u) }
}

func gone() binder {
	return func(fs *flag.FlagSet, _ *Config, n, u string) { fs.Var(goneValue{}, n, u) }
}

// command is what the command line asks for beside the configuration.
type command struct {
	configFile   string
	printVersion bool
}

// newFlagSet has every flag of the table, and the two that are no setting. It
// prints nothing by itself.
func newFlagSet(c *Config, cmd *command) *flag.FlagSet {
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for _, g := range flagTable() {
		for _, f := range g.flags {
			f.bind(fs, c, f.name, f.usage)
		}
	}
	for _, n := range goneFlags {
		gone()(fs, c, n, "")
	}
	fs.StringVar(&cmd.configFile, "config-file", "", "Path to the server configuration file. Other flags and environment variables are then ignored.")
	fs.BoolVar(&cmd.printVersion, "version", false, "Print the version and exit.")
	return fs
}

// inertFlags is why each flag without a meaning has none, by name.
func inertFlags() map[string]string {
	inert := make(map[string]string)
	for _, g := range flagTable() {
		for _, f := range g.flags {
			if f.inert != "" {
				inert[f.name] = f.inert
			}
		}
	}
	for _, n := range goneFlags {
		inert[n] = "etcd itself ignores it"
	}
	return inert
}

// goneFlags are those of etcd 2 that etcd 3.7 still takes and ignores.
var goneFlags = []string{
	"cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force", "max-result-buffer",
	"max-retry-attempts", "peer-heartbeat-interval", "peer-election-timeout", "retry-interval", "snapshot", "v", "vv",
	"test.coverprofile", "test.outputdir",
}

// tlsText binds a field that the client and the peer side have in common.
func tlsText(side func(*Config) *etcdapi.TLSOptions, f func(*etcdapi.TLSOptions) *string) binder {
	return text(func(c *Config) *string { return f(side(c)) })
}

func clientSide(c *Config) *etcdapi.TLSOptions { return &c.ClientTLS }
func peerSide(c *Config) *etcdapi.TLSOptions   { return &c.PeerTLS }

func certFile(o *etcdapi.TLSOptions) *string       { return &o.CertFile }
func keyFile(o *etcdapi.TLSOptions) *string        { return &o.KeyFile }
func clientCertFile(o *etcdapi.TLSOptions) *string { return &o.ClientCertFile }
func clientKeyFile(o *etcdapi.TLSOptions) *string  { return &o.ClientKeyFile }
func trustedCAFile(o *etcdapi.TLSOptions) *string  { return &o.TrustedCAFile }
func crlFile(o *etcdapi.TLSOptions) *string        { return &o.CRLFile }
