package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
)

// errUsage is a command line that cannot be understood: exit code 2, as etcd.
type errUsage struct{ err error }

func (e errUsage) Error() string { return e.err.Error() }
func (e errUsage) Unwrap() error { return e.err }

// parse reads the settings from the command line and the environment, or from
// the configuration file that one of them names. The configuration comes back
// with an error too, as far as it was understood: it says where to log.
func parse(args, environ []string) (*Config, command, error) {
	c, cmd := DefaultConfig(), command{}
	fs := newFlagSet(c, &cmd)
	if err := fs.Parse(args); err != nil {
		return c, cmd, errUsage{err}
	}
	if cmd.printVersion {
		return c, cmd, nil
	}
	if fs.NArg() > 0 {
		return c, cmd, fmt.Errorf("%q is not a valid flag", fs.Arg(0))
	}
	if cmd.configFile == "" {
		cmd.configFile = lookupEnv(environ, flagEnv("config-file"))
	}
	var err error
	if cmd.configFile != "" {
		c = DefaultConfig()
		err = c.loadFile(cmd.configFile)
		c.note("loaded server configuration from %s, other configuration command line flags and environment variables will be ignored if provided", cmd.configFile)
	} else {
		err = c.fromFlags(fs, environ)
	}
	c.warnInert()
	c.warnDeprecated()
	err = errors.Join(err, c.applyProfile(machineRoot()))
	c.EnsureDefaults()
	return c, cmd, errors.Join(err, c.Validate())
}

// fromFlags completes what the command line set.
func (c *Config) fromFlags(fs *flag.FlagSet, environ []string) error {
	report, err := setFlagsFromEnv(fs, environ)
	for _, kv := range report.used {
		c.note("recognized and used environment variable %s", kv)
	}
	for _, kv := range report.unknown {
		c.warn("unrecognized environment variable %s", kv)
	}
	fs.Visit(func(f *flag.Flag) { c.explicit[f.Name] = true })
	if c.explicit["listen-client-urls"] && !c.explicit["advertise-client-urls"] {
		c.AdvertiseClientURLs = nil
	}
	if (c.DiscoverySRV != "" || c.DiscoverySRVName != "" || c.discovers()) && !c.explicit["initial-cluster"] {
		c.InitialCluster = ""
	}
	return err
}

// warnInert has one line for each setting that was made and means nothing here.
func (c *Config) warnInert() {
	inert := inertFlags()
	var names []string
	for name := range c.explicit {
		if inert[name] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		c.warn("--%s has no effect: %s", n, inert[n])
	}
	c.warnings = append(c.warnings, c.Gates.warnings()...)
}

// warnDeprecated has etcd's line for each setting that it will not have for long.
func (c *Config) warnDeprecated() {
	if c.explicit["max-snapshots"] {
		c.warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.")
	}
	if c.explicit["v2-deprecation"] {
		c.warn("--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.")
	}
}

func lookupEnv(environ []string, name string) string {
	for _, kv := range environ {
		if len(kv) > len(name) && kv[len(name)] == '=' && kv[:len(name)] == name {
			return kv[len(name)+1:]
		}
	}
	return ""
}
