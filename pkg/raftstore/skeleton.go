package raftstore

import (
	"context"
	"io"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// This file lists the exported signatures while the package is being written; it goes away.

type Store struct{}

type Event interface{ String() string }

func Open(cfg Config) (*Store, error) { panic("being written") }
func (s *Store) Propose(ctx context.Context, cmd Command) (mvcc.Result, error) {
	panic("being written")
}
func (s *Store) View() *mvcc.View                                 { panic("being written") }
func (s *Store) ReadView(ctx context.Context) (*mvcc.View, error) { panic("being written") }
func (s *Store) HasLeader() bool                                  { panic("being written") }
func (s *Store) LeaderLost() <-chan struct{}                      { panic("being written") }
func (s *Store) Status() Status                                   { panic("being written") }
func (s *Store) Members() []membership.Member                     { panic("being written") }
func (s *Store) MemberID() uint64                                 { panic("being written") }
func (s *Store) ClusterID() uint64                                { panic("being written") }
func (s *Store) Backup(ctx context.Context) (int64, string, io.ReadCloser, error) {
	panic("being written")
}
func (s *Store) Hash(ctx context.Context) (uint32, error)                 { panic("being written") }
func (s *Store) Checkpoint(ctx context.Context) error                     { panic("being written") }
func (s *Store) Defragment(ctx context.Context) error                     { panic("being written") }
func (s *Store) MoveLeader(ctx context.Context, id uint64) error          { panic("being written") }
func (s *Store) CompactWait(ctx context.Context, rev mvcc.Revision) error { panic("being written") }
func (s *Store) LeaseRenew(ctx context.Context, id mvcc.LeaseID) (int64, error) {
	panic("being written")
}
func (s *Store) LeaseRemaining(id mvcc.LeaseID) (time.Duration, bool) { panic("being written") }
func (s *Store) Close() error                                         { panic("being written") }

type Finding struct {
	File   string
	Offset int64
	Reason string
}

func Check(fs vfs.FS, dataDir string, report func(Finding)) error { panic("being written") }
func Dump(fs vfs.FS, dataDir string, w io.Writer) error           { panic("being written") }
