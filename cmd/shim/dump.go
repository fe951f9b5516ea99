package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// dumpCommand is "shim dump DATA-DIR".
func dumpCommand(args []string, stdout, stderr io.Writer) int {
	d, ok := parseDirs("dump", args, stderr)
	if !ok {
		return exitUsage
	}
	w := bufio.NewWriter(stdout)
	err := raftstore.Dump(vfs.OS, d, w)
	if err = errors.Join(err, w.Flush()); err != nil {
		fmt.Fprintf(stderr, "dump %s: %v\n", d.Data, oneLine(err))
		return exitError
	}
	return exitOK
}
