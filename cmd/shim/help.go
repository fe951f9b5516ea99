package main

import (
	"fmt"
	"io"
	"strings"
)

const usage = `Usage:

  shim [serve] [flags]
    Serve the etcd API from a data directory. The flags and the ETCD_*
    variables are those of etcd 3.7.

  shim check [--wal-dir DIR] DATA-DIR
    Walk the log and the database of a stopped member and report what is
    corrupt, by file and offset.

  shim dump [--wal-dir DIR] DATA-DIR
    Write the log and the database of a stopped member as text.

  shim snapshot save|status|restore FILE [flags]
    Take a snapshot of a running member, look at one, or make the data
    directory of a new cluster's member from one; shim snapshot --help.

  shim version, shim --version
    Show the version of etcd that this stands in for, and of shim.

  shim -h | --help
    Show every flag.

  shim --config-file FILE
    Read the settings from FILE, in the form of etcd's configuration file;
    other flags and variables are then ignored. Durations in it are in
    nanoseconds.
`

// printHelp lists every flag with its default. Those without an effect say why.
func printHelp(w io.Writer) {
	var cmd command
	fs := newFlagSet(DefaultConfig(), &cmd)
	for _, g := range flagTable() {
		fmt.Fprintf(w, "\n%s:\n", g.title)
		for _, f := range g.flags {
			fmt.Fprintf(w, "  --%s '%s'\n", f.name, fs.Lookup(f.name).DefValue)
			fmt.Fprintf(w, "    %s\n", strings.ReplaceAll(f.usage, "\n", "\n      "))
			if f.inert != "" {
				fmt.Fprintf(w, "    No effect: %s.\n", f.inert)
			}
		}
	}
}
