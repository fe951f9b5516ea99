package raftstore

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// hang is the hook of a member's disk.
func (c *chaos) hang(i int) func(vfs.Op) error {
	return func(op vfs.Op) error {
		if pause := c.slow[i].Load(); pause > 0 && op.Kind == vfs.OpSync {
			time.Sleep(time.Duration(pause))
		}
		return nil
	}
}

// fault is one thing that befalls the disk of a member that runs, all members at once, or the space that they have.
func (c *chaos) fault(ctx context.Context, i int, s *Store) {
	disk := c.members[i].fs.(*vfs.Mem)
	switch c.intN(6) {
	case 0:
		disk.SetCapacity(disk.Used() + int64(c.intN(100<<10)))
	case 1:
		disk.SetCapacity(0)
	case 2:
		c.slow[i].Store(int64(c.intN(500)) * int64(time.Millisecond))
	case 3:
		c.slow[i].Store(0)
	case 4:
		_, _ = s.Propose(ctx, alarmCommand(pb.AlarmRequest_ACTIVATE, s.id.member))
		time.Sleep(time.Duration(c.intN(100)) * time.Millisecond)
		c.disarm(s)
	case 5: // the power fails
		c.endFaults()
		for i, s := range c.stores[:len(c.slow)] {
			if s != nil {
				c.down(i, true)
			}
		}
		time.Sleep(time.Duration(c.intN(300)) * time.Millisecond)
		c.upAll()
	}
}

func (c *chaos) endFaults() {
	for i := range c.slow {
		c.slow[i].Store(0)
		c.members[i].fs.(*vfs.Mem).SetCapacity(0)
	}
}

func (c *chaos) disarm(s *Store) {
	for _, a := range s.View().Alarms() {
		if a.GetAlarm() == pb.AlarmType_NOSPACE {
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			_, _ = s.Propose(ctx, alarmCommand(pb.AlarmRequest_DEACTIVATE, a.GetMemberID()))
			cancel()
		}
	}
}

// hold keeps leases alive, at any member, for some time each. A lease must be there for as long as its owner was told.
func (c *chaos) hold(ctx context.Context, name int) {
	const ttl = 3
	for n := 0; ctx.Err() == nil; n++ {
		id := mvcc.LeaseID(1000*(name+1) + n)
		var until time.Time
		for left := 1 + c.intN(8); left > 0 && ctx.Err() == nil; left-- {
			began := time.Now()
			ok, over := c.renew(ctx, id, ttl, until.IsZero())
			if over && time.Now().Before(until) {
				c.t.Errorf("lease %d is said to have ended %v early", id, time.Until(until))
			}
			if ok {
				until = began.Add(ttl * time.Second)
			}
			if over {
				break
			}
			time.Sleep(time.Duration(c.intN(2000)) * time.Millisecond)
			c.wantLease(ctx, id, until)
		}
		for !until.IsZero() && time.Now().Before(until) && ctx.Err() == nil {
			time.Sleep(time.Duration(c.intN(int(time.Until(until)/time.Millisecond)+1)) * time.Millisecond)
			c.wantLease(ctx, id, until)
		}
		time.Sleep(time.Millisecond)
	}
}

// renew grants the lease first.
func (c *chaos) renew(ctx context.Context, id mvcc.LeaseID, ttl int64, first bool) (ok, over bool) {
	s := c.store()
	if s == nil {
		time.Sleep(5 * time.Millisecond)
		return false, false
	}
	call, cancel := context.WithTimeout(ctx, time.Duration(1+c.intN(3000))*time.Millisecond)
	defer cancel()
	var err error
	if first {
		_, err = s.Propose(call, Command{Kind: mvcc.KindLeaseGrant, Request: &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl}}})
	} else {
		_, err = s.LeaseRenew(call, id)
	}
	return err == nil, errors.Is(err, mvcc.ErrLeaseNotFound) || errors.Is(err, mvcc.ErrLeaseExists)
}

// wantLease reads, at any member.
func (c *chaos) wantLease(ctx context.Context, id mvcc.LeaseID, until time.Time) {
	s := c.store()
	if s == nil || until.IsZero() {
		return
	}
	call, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	v, err := s.ReadView(call)
	if err != nil {
		return
	}
	now := time.Now()
	if _, ok := v.Lease(id); !ok && now.Before(until) {
		c.t.Errorf("lease %d ended %v early", id, until.Sub(now))
	}
}
