package raftstore

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// quotaWatch keeps what is used within the quota, together with the state machine. Here a command is refused that would grow the live keys
// beyond it, and the NOSPACE alarm of this member is raised; while an alarm stands the state machine refuses what grows, on all members
// alike. The ticker looks at what is used: it raises the alarm when others have grown the store beyond the quota of this member, and lowers
// it when there is room again. A leader does that for members that are gone.
type quotaWatch struct {
	s         *Store
	alarm     *compact.QuotaAlarm // the ticker's
	proposing chan struct{}       // capacity 1: held by who changes this member's alarm
}

func newQuotaWatch(s *Store, v *mvcc.View) *quotaWatch {
	return &quotaWatch{s: s, alarm: compact.NewQuotaAlarm(s.cfg.Quota, v.QuotaSize()), proposing: make(chan struct{}, 1)}
}

func noSpaceIn(v *mvcc.View, member uint64) bool {
	return slices.ContainsFunc(v.Alarms(), func(a *pb.AlarmMember) bool {
		return a.GetAlarm() == pb.AlarmType_NOSPACE && a.GetMemberID() == member
	})
}

// admit refuses a command that the disk or the quota has no room for. On a full disk only what frees room may use what is left of the log;
// at the quota all but what grows goes on, leases too.
func (q *quotaWatch) admit(ctx context.Context, req *pb.InternalRaftRequest) error {
	s := q.s
	view, full := s.View(), s.spaceLow.Load()
	if !full && s.cfg.Quota.Admit(view.QuotaSize(), compact.Cost(req)).OK {
		return nil
	}
	switch growth := view.Growth(req); {
	case full && growth >= 0:
		return mvcc.ErrNoSpace
	case growth <= 0:
		return nil
	case view.QuotaSize() < s.cfg.Quota.Low(): // too much at once: that is no reason to refuse what others want
		return mvcc.ErrNoSpace
	}
	return q.refuse(ctx)
}

// refuse raises the alarm, unless it stands. Of many at once one proposes it, and the others wait for that.
func (q *quotaWatch) refuse(ctx context.Context) error {
	if noSpaceIn(q.s.View(), q.s.id.member) {
		return mvcc.ErrNoSpace
	}
	select {
	case q.proposing <- struct{}{}:
		defer func() { <-q.proposing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !noSpaceIn(q.s.View(), q.s.id.member) {
		if err := q.set(ctx, pb.AlarmRequest_ACTIVATE, q.s.id.member); err != nil {
			return fmt.Errorf("raise alarm: %w", err)
		}
	}
	return mvcc.ErrNoSpace
}

func (q *quotaWatch) set(ctx context.Context, action pb.AlarmRequest_AlarmAction, member uint64) error {
	return q.s.proposeOwn(ctx, Command{Kind: mvcc.KindAlarm, Request: &pb.InternalRaftRequest{
		Alarm: &pb.AlarmRequest{MemberID: member, Action: action, Alarm: pb.AlarmType_NOSPACE}}})
}

// look is called by the ticker. It does not wait.
func (q *quotaWatch) look() {
	v := q.s.View()
	used := v.QuotaSize()
	look := q.alarm.Look(used, noSpaceIn(v, q.s.id.member))
	if look.Near != 0 {
		q.s.cfg.OnEvent(QuotaNear{Percent: look.Near, Used: used, Quota: q.s.cfg.Quota.Ceiling()})
	}
	switch orphan := q.orphan(v); {
	case look.Raise:
		q.change(pb.AlarmRequest_ACTIVATE, q.s.id.member)
	case look.Lower:
		q.change(pb.AlarmRequest_DEACTIVATE, q.s.id.member)
	case orphan != 0:
		q.change(pb.AlarmRequest_DEACTIVATE, orphan)
	}
}

// orphan is a member whose alarm the leader has to lower, as there is room: it is not there to do so, or it is no member (any more; a restored
// snapshot has the alarms of the members it was taken from). One that comes back and finds no room by its own quota raises the alarm again as
// soon as something grows. An alarm of nobody in particular (0) is left to who has raised it. 0: there is none.
func (q *quotaWatch) orphan(v *mvcc.View) uint64 {
	s := q.s
	if len(v.Alarms()) == 0 || s.lead.Load().leader != s.id.member || v.QuotaSize() >= s.cfg.Quota.Low() {
		return 0
	}
	for _, a := range v.Alarms() {
		id := a.GetMemberID()
		if a.GetAlarm() == pb.AlarmType_NOSPACE && id != 0 && id != s.id.member && s.peers.ActiveSince(id).IsZero() {
			return id
		}
	}
	return 0
}

// change proposes in the background, one at a time. What gets lost is found again at the next look.
func (q *quotaWatch) change(action pb.AlarmRequest_AlarmAction, member uint64) {
	s := q.s
	if s.closing.Load() || s.lead.Load().leader == 0 {
		return
	}
	select {
	case q.proposing <- struct{}{}:
	default:
		return
	}
	s.running.Go(func() {
		defer func() { <-q.proposing }()
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.requestTimeout())
		defer cancel()
		_ = q.set(ctx, action, member)
	})
}
