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
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: shim dump DATA-DIR")
		return exitUsage
	}
	w := bufio.NewWriter(stdout)
	err := raftstore.Dump(vfs.OS, args[0], w)
	if err = errors.Join(err, w.Flush()); err != nil {
		fmt.Fprintf(stderr, "dump %s: %v\n", args[0], oneLine(err))
		return exitError
	}
	return exitOK
}
