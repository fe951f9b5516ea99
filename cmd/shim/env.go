package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
)

// envPrefix begins the names of etcd's environment variables.
const envPrefix = "ETCD_"

// flagEnv is the environment variable of a flag.
func flagEnv(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// envReport is what came of the environment.
type envReport struct {
	used    []string // "NAME=value" that were taken
	unknown []string // "NAME=value" that look like etcd's and are none
}

// setFlagsFromEnv sets each flag that was not on the command line from its
// variable. A variable whose flag was on the command line as well is an error,
// as in etcd: whoever starts the process may believe in either.
//
// ETCD_VERSION is no flag but a habit of images and is left alone.
func setFlagsFromEnv(fs *flag.FlagSet, environ []string) (envReport, error) {
	var (
		report envReport
		errs   []error
		onLine = make(map[string]bool)
		byName = make(map[string]*flag.Flag)
	)
	fs.VisitAll(func(f *flag.Flag) { byName[flagEnv(f.Name)] = f })
	fs.Visit(func(f *flag.Flag) { onLine[flagEnv(f.Name)] = true })
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(kv, "=")
		f := byName[name]
		switch {
		case onLine[name]:
			errs = append(errs, fmt.Errorf("conflicting environment variable %q is shadowed by corresponding command-line flag (either unset environment variable or disable flag)", name))
		case name == flagEnv("version") && value != "":
			report.unknown = append(report.unknown, kv)
		case f != nil && value != "":
			if err := fs.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("invalid value %q for %s: %w", value, name, err))
				continue
			}
			report.used = append(report.used, kv)
		case strings.HasPrefix(name, envPrefix):
			report.unknown = append(report.unknown, kv)
		}
	}
	return report, errors.Join(errs...)
}
