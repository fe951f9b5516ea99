package main

import (
	"flag"
	"fmt"
	"io"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// parseDirs reads the arguments of the commands that look at a stopped member.
func parseDirs(verb string, args []string, stderr io.Writer) (d raftstore.Dirs, ok bool) {
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&d.WAL, "wal-dir", "", "")
	if err := fs.Parse(args); err == nil && fs.NArg() == 1 {
		d.Data = fs.Arg(0)
		return d, true
	}
	fmt.Fprintf(stderr, "usage: shim %s [--wal-dir DIR] DATA-DIR\n", verb)
	return d, false
}

// checkCommand is "shim check DATA-DIR": one line per finding, and exit code 1
// when there is one.
func checkCommand(args []string, stdout, stderr io.Writer) int {
	d, ok := parseDirs("check", args, stderr)
	if !ok {
		return exitUsage
	}
	findings := 0
	err := raftstore.Check(vfs.OS, d, func(f raftstore.Finding) {
		findings++
		fmt.Fprintln(stdout, f)
	})
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "check %s: %v\n", d.Data, err)
		return exitError
	case findings > 0:
		fmt.Fprintf(stdout, "%s: %d findings\n", d.Data, findings)
		return exitError
	}
	fmt.Fprintf(stdout, "%s: ok\n", d.Data)
	return exitOK
}
