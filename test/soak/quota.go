package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/measure"
)

const (
	fillBytes    = 16 << 10
	fillHurryMax = 4
	fillCalls    = 64 // under way at most
	fillMax      = 2 * time.Minute
	clearWorkers = 8
	// farPart of the quota is what the fill that does not reach it holds.
	farPart = 16
	// healPatience is how long a store has to notice by itself that there is space.
	healPatience = 5 * time.Second
)

// quotaReached fills the store until it refuses, and makes room again. It does
// so once.
func quotaReached(ctx context.Context, s *soak) error {
	s.api.full.Store(true)
	defer s.api.full.Store(false)
	s.part("filling")
	forced := context.WithoutCancel(ctx)
	filled, reached := s.fillUp(forced, math.MaxInt)
	if !reached {
		return fmt.Errorf("the quota is not reached after %d objects of %d bytes", len(filled), fillBytes)
	}
	s.part("at the quota")
	s.note("times at the quota", 0)
	pause(forced, s.every/4) // for the load to go on at the quota
	s.part("clearing")
	s.clear(forced, filled)
	s.part("making room")
	err := s.heal(forced)
	s.part("afterwards")
	return err
}

// farFromQuota is the fill at the same rate, which does not come near the quota:
// it writes over what it has created. It goes on until ctx ends.
func farFromQuota(ctx context.Context, s *soak) error {
	filled, refusals := s.fillUp(ctx, int(s.quota/farPart/fillBytes))
	if refusals {
		return errors.New("growth is refused far from the quota")
	}
	s.clear(context.WithoutCancel(ctx), filled)
	return nil
}

func (s *soak) fillRate() float64 {
	return s.fillPerSecond * min(max(float64(lengthDefault)/float64(s.length), 1), fillHurryMax)
}

// fillUp creates objects until one is refused or ctx ends, not more than most:
// then it writes over them.
func (s *soak) fillUp(ctx context.Context, most int) (filled []*object, refusals bool) {
	ctx, stop := context.WithTimeout(ctx, fillMax)
	defer stop()
	var (
		mu    sync.Mutex // guards filled and refusals
		calls sync.WaitGroup
		under = make(chan struct{}, fillCalls)
		idle  pool
	)
	begin := time.Now().UnixNano()
	_, _ = measure.NewPacer(s.fillRate()).Run(ctx, nil, func(i int, _ time.Time) {
		under <- struct{}{}
		calls.Go(func() {
			defer func() { <-under }()
			var o *object
			if i >= most {
				o = idle.take()
			}
			fresh := o == nil
			if fresh {
				o = &object{key: fmt.Sprintf("/registry/masterleases/fill/%d-%d", begin, i)}
			}
			out := s.api.put(context.WithoutCancel(ctx), services, o, s.api.value(fillBytes), 0)
			mu.Lock()
			defer mu.Unlock()
			if out == acked {
				idle.put(o)
				if fresh {
					filled = append(filled, o)
				}
				return
			}
			refusals = refusals || out == refused
			stop()
		})
	})
	calls.Wait()
	return filled, refusals
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
