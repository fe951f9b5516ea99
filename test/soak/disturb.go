package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// disturbance is one of the things that must not be felt. It goes on until ctx
// ends, and then puts things right again; marks tell when something begins.
type disturbance func(ctx context.Context, s *soak) error

// compactions are an apiserver's: each to the revision that the one before it
// saw, after a write that decides which apiserver does it.
func compactions(until context.Context, s *soak) error {
	ctx := context.WithoutCancel(until)
	seen, err := s.api.revision(ctx, services)
	for wait := s.every / 4; err == nil && pause(until, wait); wait = s.every {
		s.mark("compaction")
		if s.api.put(ctx, services, s.compactKey, fmt.Append(nil, seen), 0) == acked || s.api.full.Load() {
			err = s.compact(ctx, seen, false)
		}
		if err == nil {
			seen, err = s.api.revision(ctx, services)
		}
	}
	return err
}

// compact waits for the rows to be gone if physical.
func (s *soak) compact(ctx context.Context, rev int64, physical bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.api.kv(services).Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: physical})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) { // the quota's went further
		return nil
	}
	return err
}

// defragmentations are etcdctl's, one after the other.
func defragmentations(ctx context.Context, s *soak) error {
	var err error
	for err == nil && pause(ctx, s.every/4) {
		err = s.defragment(context.WithoutCancel(ctx))
	}
	return err
}

func (s *soak) defragment(ctx context.Context) error {
	s.mark("defragmentation")
	begin := time.Now()
	_, err := pb.NewMaintenanceClient(s.api.conn[services]).Defragment(ctx, &pb.DefragmentRequest{})
	s.note("defragmentations", time.Since(begin))
	return err
}

// overLink is a disturbance by a process of its own, whose readers share a link.
func overLink(name string) disturbance {
	return func(ctx context.Context, s *soak) error { return s.child(ctx, name, s.link) }
}

// atLoopback is the same without the link.
func atLoopback(name string) disturbance {
	return func(ctx context.Context, s *soak) error { return s.child(ctx, name, 0) }
}

// child runs one whose link carries so many Mbit/s; 0 for none.
func (s *soak) child(ctx context.Context, name string, link int) error {
	s.mark(name)
	return runChild(ctx, name, s.server.Client, s.every/2, link, func(line said) {
		switch {
		case line.Problem != "":
			s.api.book.Problem("%s: %s", name, line.Problem)
		case line.List != nil:
			s.api.book.List(line.List.Prefix, line.List.Revision, line.List.Digest)
			s.note("lists", 0)
		case line.Watch != nil:
			s.api.book.Follow(line.Watch)
			s.note("slow watches", 0)
		case line.Snapshot > 0:
			s.note("snapshots", 0)
		}
	})
}

const (
	stormLeases   = 4
	stormKeys     = 250 // of each lease
	stormTTL      = 5 * time.Second
	stormPatience = 30 * time.Second
)

// expiries are leases with many keys that end at the same time.
func expiries(ctx context.Context, s *soak) error {
	for ctx.Err() == nil {
		begin := time.Now()
		keys := s.attach(context.WithoutCancel(ctx), begin)
		s.mark("expiry")
		if err := s.gone(context.WithoutCancel(ctx), keys); err != nil {
			return err
		}
		s.note("expiries", 0)
		pause(ctx, s.every/4)
	}
	return nil
}

// attach makes the keys, in half the time that their leases live.
func (s *soak) attach(ctx context.Context, begin time.Time) []*object {
	var wg sync.WaitGroup
	keys := make([]*object, stormLeases*stormKeys)
	for i := range keys {
		keys[i] = &object{key: fmt.Sprintf("/registry/masterleases/storm/%d-%d", begin.UnixNano(), i), expires: true}
	}
	for of := range slices.Chunk(keys, stormKeys) {
		wg.Go(func() {
			id := s.api.grant(ctx, stormTTL)
			for i := 0; i < len(of) && id != 0; i++ {
				s.api.put(ctx, services, of[i], s.api.value(leaseBytes), id)
				time.Sleep(stormTTL / (2 * stormKeys))
			}
		})
	}
	wg.Wait()
	return keys
}

// gone waits until the keys of leases that end are not there any more.
func (s *soak) gone(ctx context.Context, keys []*object) error {
	for deadline := time.Now().Add(stormPatience); len(keys) > 0; {
		o := keys[len(keys)-1]
		if err := s.api.get(ctx, services, o); err != nil {
			return err
		}
		if o.mod == 0 {
			keys = keys[:len(keys)-1]
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is there, and its lease ended %v ago", o.key, stormPatience)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}
