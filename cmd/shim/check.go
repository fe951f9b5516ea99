package main

import (
	"fmt"
	"io"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// checkCommand is "shim check DATA-DIR": one line per finding, and exit code 1
// when there is one.
func checkCommand(args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: shim check DATA-DIR")
		return exitUsage
	}
	findings := 0
	err := raftstore.Check(vfs.OS, args[0], func(f raftstore.Finding) {
		findings++
		fmt.Fprintln(stdout, f)
	})
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "check %s: %v\n", args[0], err)
		return exitError
	case findings > 0:
		fmt.Fprintf(stdout, "%s: %d findings\n", args[0], findings)
		return exitError
	}
	fmt.Fprintf(stdout, "%s: ok\n", args[0])
	return exitOK
}
