package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/kubeshim/shim/pkg/raftstore"
)

const verbRestore = snapshotVerb("shim snapshot restore")

// bumpRevisionDefault is etcd's advice for a snapshot of up to a week: 1,650 writes a second in each second of it. Revisions have 63
// bits, so there is room for nine thousand million restores.
const bumpRevisionDefault = 1_000_000_000

// restoreFlags are etcdutl's.
type restoreFlags struct {
	config        raftstore.RestoreConfig
	peerURLs      string
	markCompacted bool
	mapBytes      uint64
}

func (f *restoreFlags) set() *flag.FlagSet {
	fs := flag.NewFlagSet(string(verbRestore), flag.ContinueOnError)
	c := &f.config
	fs.StringVar(&c.DataDir, "data-dir", "", "The data directory to make: one that is not there, or empty. Default NAME.etcd.")
	fs.StringVar(&c.Name, "name", "default", "The name of this member.")
	fs.StringVar(&c.InitialCluster, "initial-cluster", "", "All members of the new cluster, as NAME=URL,... Default NAME=the peer URLs.")
	fs.StringVar(&c.ClusterToken, "initial-cluster-token", "etcd-cluster", "Becomes part of the IDs, and separates the new cluster from the former one.")
	fs.StringVar(&f.peerURLs, "initial-advertise-peer-urls", "http://localhost:2380", "The peer URLs of this member.")
	fs.BoolVar(&c.SkipHashCheck, "skip-hash-check", false, "Take a file without a checksum, as one that was copied from a data directory, or with a wrong one.")
	fs.Uint64Var(&c.BumpRevision, "bump-revision", bumpRevisionDefault, `How many revisions the new cluster is ahead of the snapshot. The former cluster went on after the
snapshot was taken; a client that has seen those revisions must not meet them again with other contents.
The default covers a week of 1,650 writes a second. 0 goes on from the snapshot's revision: only for a
cluster whose clients have all been started anew.`)
	fs.BoolVar(&f.markCompacted, "mark-compacted", true, `Count all revisions before the new one as compacted, so that watches from before the restore end and
their clients list again. It goes with --bump-revision: false is for --bump-revision=0 only.`)
	fs.StringVar(&c.WALDir, "wal-dir", "", "The directory for the log that the member will be started with: one that is not there, or empty. Default: in the data directory.")
	fs.Uint64Var(&f.mapBytes, "initial-memory-map-size", 0, "No effect: the map has room for 10 GiB, and grows.")
	return fs
}

// finish is what follows from the flags.
func (f *restoreFlags) finish(fs *flag.FlagSet) error {
	given := make(map[string]bool)
	fs.Visit(func(g *flag.Flag) { given[g.Name] = true })
	c := &f.config
	if !given["mark-compacted"] {
		f.markCompacted = c.BumpRevision > 0
	}
	if f.markCompacted != (c.BumpRevision > 0) {
		return errors.New("--mark-compacted is required if --bump-revision > 0, and disallowed otherwise")
	}
	c.PeerURLs = strings.Split(f.peerURLs, ",")
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	return nil
}

func snapshotRestore(args []string, stdout, stderr io.Writer) int {
	var f restoreFlags
	flags := f.set()
	file, code, ok := parseFile(flags, args, stdout, stderr)
	if !ok {
		return code
	}
	if err := f.finish(flags); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", verbRestore, err)
		return exitUsage
	}
	if f.mapBytes != 0 {
		fmt.Fprintf(stderr, "%s: --initial-memory-map-size has no effect\n", verbRestore)
	}
	f.config.Snapshot = file
	_, missing := os.Lstat(f.config.DataDir)
	r, err := raftstore.Restore(f.config)
	if err != nil {
		if errors.Is(missing, fs.ErrNotExist) {
			_ = os.Remove(f.config.DataDir) // which is empty, if it was made at all
		}
		return verbRestore.fail(stderr, hint(err))
	}
	fmt.Fprintf(stdout, "Restored revision %d into %s: member %s of cluster %s begins at revision %d", r.SnapshotRevision, f.config.DataDir,
		r.MemberID, r.ClusterID, r.Revision)
	switch {
	case r.Compacted == r.Revision:
		fmt.Fprint(stdout, ", with all before it compacted")
	case r.Compacted > 0:
		fmt.Fprintf(stdout, ", compacted up to %d", r.Compacted)
	}
	fmt.Fprintln(stdout)
	if r.Alarms > 0 {
		fmt.Fprintf(stdout, "The snapshot has %d alarms, which still hold: see etcdctl alarm list and alarm disarm.\n", r.Alarms)
	}
	return exitOK
}

// hint names the flag that goes past an error.
func hint(err error) error {
	for reason, flag := range map[error]string{
		raftstore.ErrNoChecksum: "--skip-hash-check", raftstore.ErrWrongChecksum: "--skip-hash-check",
	} {
		if errors.Is(err, reason) {
			return fmt.Errorf("%w (%s restores it nevertheless)", err, flag)
		}
	}
	return err
}
