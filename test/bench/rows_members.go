package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/member"
)

// leader answers the member that leads and those that follow it.
func (s *server) leader(ctx context.Context) (leader *member.Member, followers []*member.Member, err error) {
	for _, m := range s.members {
		resp, err := pb.NewMaintenanceClient(m.Conn[0]).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return nil, nil, err
		}
		if resp.Leader == resp.Header.MemberId {
			leader = m
		} else {
			followers = append(followers, m)
		}
	}
	if leader == nil {
		return nil, nil, errors.New("no member leads")
	}
	return leader, followers, nil
}

// answers waits until the member answers a linearizable read.
func answers(ctx context.Context, m *member.Member) error {
	_, err := pb.NewKVClient(m.Conn[0]).Range(ctx, &pb.RangeRequest{Key: []byte("/registry/health")}, grpc.WaitForReady(true))
	return err
}

// onLeader has a row use the leader.
func onLeader(run func(context.Context, *dataset) error) func(context.Context, *dataset) error {
	return func(ctx context.Context, d *dataset) error {
		leader, _, err := d.s.leader(ctx)
		if err != nil {
			return err
		}
		d.s.through(leader)
		return run(ctx, d)
	}
}

// rowUpdateMembers updates through the leader, and through a follower.
func rowUpdateMembers(ctx context.Context, d *dataset) error {
	leader, followers, err := d.s.leader(ctx)
	if err != nil {
		return err
	}
	for _, by := range []struct {
		m    *member.Member
		name string
	}{{leader, ""}, {followers[0], " through a follower"}} {
		d.s.through(by.m)
		f, err := d.updates(ctx)
		if err != nil {
			return err
		}
		d.add("update"+by.name, "µs CPU/op", f)
		f.Value = f.Rate
		d.add("updates/s"+by.name, "ops/s", f)
	}
	return nil
}

// rowGetMembers reads through each member; of the followers the one that
// takes more counts.
func rowGetMembers(ctx context.Context, d *dataset) error {
	leader, followers, err := d.s.leader(ctx)
	if err != nil {
		return err
	}
	var most figures
	for _, m := range append(followers, leader) {
		d.s.through(m)
		f, err := d.gets(ctx, inFlight, d.few(40_000))
		if err != nil {
			return err
		}
		if m == leader {
			d.add("get through the leader", "µs CPU/op", f)
		} else if f.Value > most.Value {
			most = f
		}
	}
	d.add("get through a follower", "µs CPU/op", most)
	return nil
}

// rowKill and rowStop end the leader several times. The figure is the longest
// time without an accepted write.
func rowKill(ctx context.Context, d *dataset) error {
	return d.interruptions(ctx, "leader killed", syscall.SIGKILL)
}

func rowStop(ctx context.Context, d *dataset) error {
	return d.interruptions(ctx, "leader stopped", syscall.SIGTERM)
}

func (d *dataset) interruptions(ctx context.Context, name string, sig syscall.Signal) error {
	const rounds = 3
	var took []time.Duration
	for range rounds {
		one, err := d.interruption(ctx, sig)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	f := figures{Ops: rounds, Note: fmt.Sprintf("each time: %v", took)}
	f.latencies(took)
	f.Value = f.Max.Seconds() * 1e3
	d.add(name, "ms without a write", f)
	return nil
}

// interruption ends the leader while writes are sent through the followers at a
// steady rate, each on its own, as one that was under way may be lost. It
// answers the longest time in which none was accepted, from the signal until
// one was that had been sent after the end of the process. The member is
// started again.
func (d *dataset) interruption(ctx context.Context, sig syscall.Signal) (time.Duration, error) {
	const every, atMost = 5 * time.Millisecond, 20 * time.Second
	leader, followers, err := d.s.leader(ctx)
	if err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	var (
		accepted = make(chan span, int(atMost/every)) // never blocks
		gone     = make(chan struct{})
		goneAt   time.Time
		answers  []time.Time
		tick     = time.NewTicker(every)
	)
	defer tick.Stop()
	begin := time.Now()
	go func() {
		defer close(gone)
		leader.End(sig)
	}()
	for i, done := 0, false; !done; {
		select {
		case <-tick.C:
			go d.write(limited, followers[i%len(followers)], i, accepted)
			i++
		case w := <-accepted:
			answers = append(answers, w.answered)
			done = !goneAt.IsZero() && w.sent.After(goneAt)
		case <-gone:
			goneAt, gone = time.Now(), nil
		case <-limited.Done():
			return 0, fmt.Errorf("no write was accepted within %v of the end of the leader", atMost)
		}
	}
	if err := leader.Launch(); err != nil {
		return 0, err
	}
	if err := leader.Connect(connections); err != nil {
		return 0, err
	}
	return longestGap(begin, answers), d.s.answers(ctx)
}

// span is a write that was accepted.
type span struct{ sent, answered time.Time }

func (d *dataset) write(ctx context.Context, via *member.Member, i int, accepted chan<- span) {
	sent := time.Now()
	_, err := pb.NewKVClient(via.Conn[i%len(via.Conn)]).Put(ctx, &pb.PutRequest{Key: otherKey("configmaps", i), Value: payload(leaseBytes, uint64(i))})
	if err == nil {
		accepted <- span{sent, time.Now()}
	}
}

// longestGap is the longest time between two answers, or from begin to the
// first. Those before begin do not count.
func longestGap(begin time.Time, answers []time.Time) (longest time.Duration) {
	slices.SortFunc(answers, time.Time.Compare)
	for _, at := range answers {
		if at.After(begin) {
			longest, begin = max(longest, at.Sub(begin)), at
		}
	}
	return longest
}
