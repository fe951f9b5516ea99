package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	if serves(os.Args[1:]) {
		takeSlack()
	}
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// serves tells whether run serves with these arguments, if they are right.
func serves(args []string) bool {
	return len(args) == 0 || args[0] == "serve" || strings.HasPrefix(args[0], "-")
}

// run is the program: a subcommand, or serve without one.
func run(args, environ []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		return serveCommand(args, environ, stdout, stderr)
	}
	switch args[0] {
	case "serve":
		return serveCommand(args[1:], environ, stdout, stderr)
	case "version":
		printVersion(stdout)
		return exitOK
	case "help":
		return helpCommand(stdout, stderr)
	case "check":
		return checkCommand(args[1:], stdout, stderr)
	case "dump":
		return dumpCommand(args[1:], stdout, stderr)
	case "snapshot":
		return snapshotCommand(args[1:], environ, stdout, stderr)
	case "gateway", "grpc-proxy":
		fmt.Fprintf(stderr, "shim has no %q: point clients at the server itself, or run etcd's\n", args[0])
		return exitUsage
	}
	return serveCommand(args, environ, stdout, stderr)
}

func helpCommand(stdout, stderr io.Writer) int {
	fmt.Fprint(stderr, usage)
	printHelp(stdout)
	return exitOK
}

// serveCommand parses the settings and serves until it is told to stop.
func serveCommand(args, environ []string, stdout, stderr io.Writer) int {
	c, cmd, err := parse(args, environ)
	var bad errUsage
	switch {
	case errors.Is(err, flag.ErrHelp):
		return helpCommand(stdout, stderr)
	case errors.As(err, &bad):
		fmt.Fprintf(stderr, "%v\n%s\n", bad, usage)
		return exitUsage
	case cmd.printVersion:
		printVersion(stdout)
		return exitOK
	}
	log, lerr := openLog(c, stdout, stderr)
	log.Info("Running: ", "args", append([]string{os.Args[0]}, args...))
	for _, n := range c.notes {
		log.Info(n)
	}
	for _, w := range c.warnings {
		log.Warn(w)
	}
	if err == nil {
		err = lerr // which repeats what is wrong with the settings
	}
	if err != nil {
		log.Warn("failed to verify flags", "error", oneLine(err))
		return exitError
	}
	err = serve(c, log)
	if errors.As(err, new(signalled)) {
		return dieOf(err)
	}
	if err != nil {
		log.Log(bg, levelFatal, "shim failed", "error", oneLine(err))
		return exitError
	}
	return exitOK
}
