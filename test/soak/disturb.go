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

	"github.com/kubeshim/shim/test/internal/measure"
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

const (
	fillBytes    = 16 << 10
	fillRate     = 128 // creates a second: 2 MB; more where time is short
	fillHurryMax = 4
	fillCalls    = 64 // under way at most
	fillMax      = 2 * time.Minute
	clearWorkers = 8
	// healPatience is how long a store has to notice by itself that there is space.
	healPatience = 5 * time.Second
)

// quotaReached fills the store until it refuses, and makes room again. It does
// so once.
func quotaReached(ctx context.Context, s *soak) error {
	s.api.full.Store(true)
	defer s.api.full.Store(false)
	s.mark("filling")
	forced := context.WithoutCancel(ctx)
	filled, reached := s.fillUp(forced)
	if !reached {
		return fmt.Errorf("the quota is not reached after %d objects of %d bytes", len(filled), fillBytes)
	}
	s.mark("quota reached")
	s.note("times at the quota", 0)
	pause(forced, s.every/4) // for the load to go on at the quota
	s.mark("clearing")
	s.clear(forced, filled)
	return s.heal(forced)
}

func (s *soak) fillRate() float64 {
	return fillRate * min(max(float64(lengthDefault)/float64(s.length), 1), fillHurryMax)
}

// fillUp creates objects until one is refused.
func (s *soak) fillUp(ctx context.Context) (filled []*object, reached bool) {
	ctx, stop := context.WithTimeout(ctx, fillMax)
	defer stop()
	var (
		mu    sync.Mutex // guards filled and reached
		calls sync.WaitGroup
		under = make(chan struct{}, fillCalls)
	)
	begin := time.Now().UnixNano()
	_, _ = measure.NewPacer(s.fillRate()).Run(ctx, nil, func(i int, _ time.Time) {
		under <- struct{}{}
		calls.Go(func() {
			defer func() { <-under }()
			o := &object{key: fmt.Sprintf("/registry/masterleases/fill/%d-%d", begin, i)}
			out := s.api.put(context.WithoutCancel(ctx), services, o, s.api.value(fillBytes), 0)
			mu.Lock()
			defer mu.Unlock()
			if out == acked {
				filled = append(filled, o)
				return
			}
			reached = reached || out == refused
			stop()
		})
	})
	calls.Wait()
	return filled, reached
}

// clear deletes what fillUp has created, which works at the quota.
func (s *soak) clear(ctx context.Context, filled []*object) {
	var wg sync.WaitGroup
	for w := range clearWorkers {
		wg.Go(func() {
			for i := w; i < len(filled); i += clearWorkers {
				s.api.remove(ctx, services, filled[i])
				time.Sleep(time.Duration(clearWorkers / (2 * s.fillRate()) * float64(time.Second)))
			}
		})
	}
	wg.Wait()
}

// heal makes room of what was deleted, and waits for growth to be let in again:
// by itself, or because the alarm is disarmed as operators of etcd do it.
func (s *soak) heal(ctx context.Context) error {
	begin := time.Now()
	o := &object{key: fmt.Sprintf("/registry/masterleases/fill/%d", begin.UnixNano())}
	for time.Since(begin) < fillMax {
		rev, err := s.api.revision(ctx, services)
		if err != nil {
			return err
		}
		if err := s.compact(ctx, rev, true); err != nil {
			return err
		}
		for waited := time.Now(); time.Since(waited) < healPatience; time.Sleep(50 * time.Millisecond) {
			if s.api.put(ctx, services, o, s.api.value(fillBytes), 0) == acked {
				s.note("times healed", time.Since(begin))
				s.api.remove(ctx, services, o)
				return nil
			}
		}
		if err := s.disarm(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("there is room, and growth is refused for %v", fillMax)
}

// disarm is what etcd needs.
func (s *soak) disarm(ctx context.Context) error {
	if s.name == "etcd" { // its quota is on the file's size
		if err := s.defragment(ctx); err != nil {
			return err
		}
	}
	maintenance := pb.NewMaintenanceClient(s.api.conn[services])
	resp, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	for _, a := range resp.GetAlarms() {
		s.note("alarms disarmed", 0)
		_, e := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm})
		err = errors.Join(err, e)
	}
	return err
}
