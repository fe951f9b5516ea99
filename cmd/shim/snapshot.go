package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

const snapshotUsage = `Usage:

  shim snapshot save FILE [flags]
    Ask the member at --endpoints for a snapshot of the database and store it in
    FILE, with its checksum behind it, as etcdctl does. FILE is there once it is
    whole.

  shim snapshot status FILE [-w simple|table|json|fields]
    Show hash, revision, keys, size and version of the database in FILE, as
    etcdutl does, and compare the checksum, if there is one.

  shim snapshot restore FILE --data-dir DIR [flags]
    Make the data directory of one member of a new cluster from a snapshot of
    shim or of etcd 3.5 to 3.7. Run it once for each member, with the same FILE.
`

// snapshotCommand is "shim snapshot VERB".
func snapshotCommand(args, environ []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "save":
			return snapshotSave(args[1:], environ, stdout, stderr)
		case "status":
			return snapshotStatus(args[1:], stdout, stderr)
		case "restore":
			return snapshotRestore(args[1:], stdout, stderr)
		case "-h", "--help", "-help", "help":
			printSnapshotHelp(stdout)
			return exitOK
		}
	}
	fmt.Fprint(stderr, snapshotUsage)
	return exitUsage
}

// printSnapshotHelp lists the flags of all verbs.
func printSnapshotHelp(w io.Writer) {
	fmt.Fprint(w, snapshotUsage)
	for _, fs := range []*flag.FlagSet{new(saveFlags).set(), new(statusFlags).set(), new(restoreFlags).set()} {
		fmt.Fprintf(w, "\n%s:\n", fs.Name())
		fs.VisitAll(func(f *flag.Flag) {
			dashes := "--"
			if len(f.Name) == 1 {
				dashes = "-"
			}
			fmt.Fprintf(w, "  %s%s '%s'\n    %s\n", dashes, f.Name, f.DefValue, strings.ReplaceAll(f.Usage, "\n", "\n    "))
		})
	}
}

// parseFile parses flags in front of and behind the one FILE.
func parseFile(fs *flag.FlagSet, args []string, stdout, stderr io.Writer) (file string, code int, ok bool) {
	fs.SetOutput(io.Discard)
	var files []string
	for {
		switch err := fs.Parse(args); {
		case err == flag.ErrHelp:
			printSnapshotHelp(stdout)
			return "", exitOK, false
		case err != nil:
			fmt.Fprintf(stderr, "%s: %v\n", fs.Name(), err)
			return "", exitUsage, false
		}
		if fs.NArg() == 0 {
			break
		}
		files, args = append(files, fs.Arg(0)), fs.Args()[1:]
	}
	if len(files) != 1 {
		fmt.Fprintf(stderr, "%s: %d files are named, not one\n", fs.Name(), len(files))
		return "", exitUsage, false
	}
	return files[0], exitOK, true
}

// fail prints the error of a verb in one line.
func (s snapshotVerb) fail(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "%s: %s\n", string(s), oneLine(err))
	return exitError
}

// snapshotVerb is what a verb is called in its messages.
type snapshotVerb string
