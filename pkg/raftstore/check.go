package raftstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// Finding is one thing that is wrong with a data dir. Offset is in bytes; -1 when no single place is at fault.
type Finding struct {
	File   string
	Offset int64
	Reason string
}

func (f Finding) String() string {
	if f.Offset < 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Reason)
	}
	return fmt.Sprintf("%s: offset %d: %s", f.File, f.Offset, f.Reason)
}

// Check walks the WAL and the bbolt file of a member that no store has open, and reports what is wrong. It changes nothing. The
// error says why it could not look.
func Check(filesystem vfs.FS, d Dirs, report func(Finding)) error {
	return check(filesystem, d, d.db(), report)
}

func check(filesystem vfs.FS, d Dirs, db string, report func(Finding)) error {
	unlock, err := lockOffline(filesystem, d)
	if err != nil {
		return err
	}
	defer unlock.Close()
	damaged := false
	content, err := checkDB(db, func(f Finding) { damaged = true; report(f) })
	if err != nil {
		return err
	}
	if damaged { // what the log says cannot be compared, but the log itself can be read
		err = wal.Scan(filesystem, d.wal(), func(wal.Position, wal.Record) error { return nil })
		return reportCorrupt(d, err, report)
	}
	r := newReplay(mark{index: content.Index, term: content.Term})
	err = wal.Scan(filesystem, d.wal(), r.record)
	if err == nil {
		err = r.check(d, db)
	}
	if err == nil {
		if commit := r.hard.GetCommit(); commit > r.last() {
			err = &CorruptError{File: d.wal(), Offset: -1,
				Reason: fmt.Sprintf("the log ends at entry %d, though entries up to %d are committed", r.last(), commit)}
		}
	}
	return reportCorrupt(d, err, report)
}

// checkDB is what the bbolt file holds. A data dir without one has not made its first checkpoint.
func checkDB(path string, report func(Finding)) (backend.Content, error) {
	db, err := backend.Open(path, backend.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return backend.Content{}, nil
	}
	if err != nil {
		return backend.Content{}, reportCorrupt(Dirs{}, err, report)
	}
	defer db.Close()
	c, err := db.Check(func(offset int64, reason string) { report(Finding{File: path, Offset: offset, Reason: reason}) })
	if err == nil && c.Index > 0 && !c.Trusted {
		report(Finding{File: path, Offset: -1, Reason: errUntrusted.Error()})
	}
	return c, reportCorrupt(Dirs{}, err, report)
}

// reportCorrupt turns corruption into a finding and answers any other error.
func reportCorrupt(d Dirs, err error, report func(Finding)) error {
	if err == nil {
		return nil
	}
	var c *CorruptError
	if !errors.As(typedError(d, err), &c) {
		return err
	}
	report(Finding(*c))
	return nil
}

func lockOffline(filesystem vfs.FS, d Dirs) (io.Closer, error) {
	_, err := filesystem.Stat(d.member())
	var lock io.Closer
	if err == nil {
		lock, err = d.lock(filesystem)
	}
	if err != nil {
		return nil, fmt.Errorf("open data dir %s: %w", d.Data, err)
	}
	if err := d.misplaced(filesystem); err != nil {
		return nil, errors.Join(fmt.Errorf("open data dir %s: %w", d.Data, err), lock.Close())
	}
	return lock, nil
}

// Dump writes the WAL and the bbolt file of a member that no store has open as text.
func Dump(filesystem vfs.FS, d Dirs, w io.Writer) error {
	return dump(filesystem, d, d.db(), w)
}

func dump(filesystem vfs.FS, d Dirs, path string, w io.Writer) error {
	unlock, err := lockOffline(filesystem, d)
	if err != nil {
		return err
	}
	defer unlock.Close()
	err = wal.Scan(filesystem, d.wal(), func(pos wal.Position, rec wal.Record) error {
		_, err := fmt.Fprintf(w, "%v %s\n", pos, describeRecord(rec))
		return err
	})
	if err != nil {
		return typedError(d, err)
	}
	db, err := backend.Open(path, backend.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return typedError(d, err)
	}
	defer db.Close()
	return typedError(d, db.Dump(w))
}

func describeRecord(rec wal.Record) string {
	switch rec.Type {
	case recordIdentity:
		id, err := decodeIdentity(rec.Data)
		if err != nil {
			return "identity: " + err.Error()
		}
		return fmt.Sprintf("identity member=%s cluster=%s", types.ID(id.member), types.ID(id.cluster))
	case recordCheckpoint:
		m, err := decodeMark(rec.Data)
		if err != nil {
			return "checkpoint: " + err.Error()
		}
		return fmt.Sprintf("checkpoint index=%d term=%d voters=%x learners=%x", m.index, m.term, m.conf.GetVoters(), m.conf.GetLearners())
	case recordHardState:
		hs, err := decodeHardState(rec.Data)
		if err != nil {
			return "hard state: " + err.Error()
		}
		return describeHardState(hs)
	case recordInstall:
		index, term, err := decodeInstall(rec.Data)
		if err != nil {
			return "install: " + err.Error()
		}
		return fmt.Sprintf("install index=%d term=%d", index, term)
	case recordEntry:
		e, err := decodeEntry(rec.Data)
		if err != nil {
			return "entry: " + err.Error()
		}
		return fmt.Sprintf("entry index=%d term=%d %s", e.GetIndex(), e.GetTerm(), describeEntry(e))
	case recordLastEntry:
		e, hs, err := decodeLastEntry(rec.Data)
		if err != nil {
			return "last entry: " + err.Error()
		}
		return fmt.Sprintf("entry index=%d term=%d %s; %s", e.GetIndex(), e.GetTerm(), describeEntry(e), describeHardState(hs))
	}
	return fmt.Sprintf("record type=%d, %d bytes", rec.Type, len(rec.Data))
}

func describeHardState(hs *raftpb.HardState) string {
	return fmt.Sprintf("hard state term=%d vote=%x commit=%d", hs.GetTerm(), hs.GetVote(), hs.GetCommit())
}
