package raftstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// Dirs are the directories of a member.
type Dirs struct {
	// Data is what etcd calls --data-dir. Everything but the log lives below Data/member.
	Data string
	// WAL is a directory for the log alone (--wal-dir), on a disk of its own for example. "": Data/member/wal.
	WAL string
}

func (d Dirs) member() string { return path.Join(d.Data, "member") }

// innerWAL is where the log is unless it has a directory of its own.
func (d Dirs) innerWAL() string { return path.Join(d.member(), "wal") }

func (d Dirs) wal() string {
	if d.WAL != "" {
		return d.WAL
	}
	return d.innerWAL()
}

// ownWAL: the log is in a directory that nothing else says to be this member's.
func (d Dirs) ownWAL() bool { return path.Clean(d.wal()) != path.Clean(d.innerWAL()) }

func (d Dirs) db() string { return path.Join(d.member(), "snap", "db") }

// lock keeps other processes away from the directories, and refuses what is not this program's. The member directory has to be there.
func (d Dirs) lock(filesystem vfs.FS) (io.Closer, error) {
	for _, dir := range []string{d.innerWAL(), d.wal()} {
		if err := refuseEtcd(filesystem, dir); err != nil {
			return nil, err
		}
	}
	lock, err := lockDir(filesystem, d.member(), ErrInUse)
	if err != nil || !d.ownWAL() {
		return lock, err
	}
	// Two data dirs may name one directory for their logs by mistake.
	if err := filesystem.MkdirAll(d.wal()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	own, err := lockDir(filesystem, d.wal(), fmt.Errorf("the log in %s is in use by another member", d.wal()))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return locks{own, lock}, nil
}

func lockDir(filesystem vfs.FS, dir string, inUse error) (io.Closer, error) {
	lock, err := filesystem.Lock(path.Join(dir, "lock"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, inUse
	}
	return lock, err
}

type locks []io.Closer

func (l locks) Close() error {
	var errs []error
	for _, c := range l {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Begun says whether there is a log: the member was started before.
func (d Dirs) Begun(filesystem vfs.FS) (bool, error) {
	fresh, err := noSegments(filesystem, d.wal())
	return !fresh, err
}

// misplaced is an error if there is a log in the data dir that --wal-dir leads past.
func (d Dirs) misplaced(filesystem vfs.FS) error {
	if !d.ownWAL() {
		return nil
	}
	inner, err := noSegments(filesystem, d.innerWAL())
	if err != nil || inner {
		return err
	}
	own, err := noSegments(filesystem, d.wal())
	switch {
	case err != nil:
		return err
	case own:
		return fmt.Errorf("%w: the log is in %s; to have it in %s, move the files there, or start without --wal-dir", ErrMisplacedLog, d.innerWAL(), d.wal())
	}
	return fmt.Errorf("%w: there are logs in %s and in %s, and one of them is not this member's; put it away", ErrMisplacedLog, d.innerWAL(), d.wal())
}

// missing says that there is no log, though the database holds the state at an index.
func (d Dirs) missing(index uint64) error {
	reason := fmt.Sprintf("the log is missing, though the database holds the state at index %d", index)
	if !d.ownWAL() {
		reason += "; if it has a directory of its own, name that with --wal-dir, or move the files back"
	}
	return &CorruptError{File: d.wal(), Offset: -1, Reason: reason}
}

// older says that the log is not the one that the database was made from, or an older copy of it.
func (d Dirs) older(end, index uint64) error {
	return &CorruptError{File: d.wal(), Offset: -1, Reason: fmt.Sprintf("the log ends at index %d, though the database holds the state at index %d: "+
		"one of them was put back or exchanged, and the two belong together", end, index)}
}

// etcdSegment is the name of a file in etcd's own WAL.
var etcdSegment = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.wal$`)

// refuseEtcd finds the log of a data dir that etcd itself uses.
func refuseEtcd(filesystem vfs.FS, walDir string) error {
	names, err := filesystem.List(walDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(names, etcdSegment.MatchString) {
		where := walDir
		if path.Base(walDir) == "wal" && path.Base(path.Dir(walDir)) == "member" {
			where = "member/wal"
		}
		return fmt.Errorf("%w: it holds etcd's own log in %s, which is not read here; take a backup with `etcdctl snapshot save` "+
			"(look at it with `etcdutl snapshot status`) and start with an empty data dir", ErrEtcdDataDir, where)
	}
	return nil
}

// noSegments is true for a directory without a log, or that is not there.
func noSegments(filesystem vfs.FS, dir string) (bool, error) {
	names, err := filesystem.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return !slices.ContainsFunc(names, func(n string) bool { return path.Ext(n) == ".wal" }), err
}
