package raftstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// filled creates objects of 1,000 bytes until one is refused, and answers how many there are.
func filled(t *testing.T, s *Store) int {
	t.Helper()
	for i := range 1000 {
		switch _, err := tryPut(s, fmt.Sprintf("k%d", i), strings.Repeat("x", 1000), 0); {
		case errors.Is(err, mvcc.ErrNoSpace):
			return i
		case err != nil:
			t.Fatalf("put: %v", err)
		}
	}
	t.Fatal("nothing was refused")
	return 0
}

func alarmCommand(action pb.AlarmRequest_AlarmAction, member uint64) Command {
	return Command{Kind: mvcc.KindAlarm, Request: &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: action, MemberID: member, Alarm: pb.AlarmType_NOSPACE}}}
}

func propose(t *testing.T, s *Store, cmd Command) {
	t.Helper()
	if _, err := s.Propose(context.Background(), cmd); err != nil {
		t.Fatalf("%v: %v", cmd.Kind, err)
	}
}

// awaitAlarm ticks until a member's alarm stands, or does not any more.
func (h *harness) awaitAlarm(s *Store, member uint64, stands bool) {
	h.t.Helper()
	h.awaitTicking(fmt.Sprintf("alarm %v", stands), func() bool {
		return noSpaceIn(s.View(), member) == stands
	})
}

// TestQuota: what would pass the quota raises the alarm; then only what grows is refused, and the alarm goes when there is room again.
func TestQuota(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Quota = 100 << 10 }
	s := h.open()
	defer closeStore(t, s)
	for range 500 { // history is not counted
		put(t, s, "k0", strings.Repeat("y", 1000))
	}
	n := filled(t, s)
	if used := s.View().QuotaSize(); used > 100<<10 || used < 98<<10 {
		t.Errorf("%d bytes are used when the quota is reached", used)
	}
	if !noSpaceIn(s.View(), s.MemberID()) {
		t.Fatalf("alarms %v", s.View().Alarms())
	}
	h.pass(time.Second)
	awaitEvent(h, QuotaNear{Percent: 90, Used: s.View().QuotaSize(), Quota: 100 << 10})
	for what, cmd := range map[string]Command{"create": putCommand("new", ""), "growing update": putCommand("k1", strings.Repeat("x", 1025))} {
		if _, err := s.Propose(context.Background(), cmd); !errors.Is(err, mvcc.ErrNoSpace) {
			t.Errorf("%s: %v", what, err)
		}
	}
	put(t, s, "k1", strings.Repeat("z", 1000))
	put(t, s, "k1", strings.Repeat("z", 1010)) // in the same unit, as a heartbeat
	put(t, s, "k1", "short")
	propose(t, s, Command{Kind: mvcc.KindLeaseGrant, Request: &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 7, TTL: 100}}})
	if _, err := tryPut(s, "k2", strings.Repeat("x", 1000), 7); err != nil {
		t.Errorf("attach to a lease: %v", err)
	}
	propose(t, s, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{
		Compaction: &pb.CompactionRequest{Revision: int64(s.View().Revision())}}})
	for i := range n / 10 {
		propose(t, s, deleteCommand(fmt.Sprintf("k%d", i)))
	}
	h.awaitAlarm(s, s.MemberID(), false)
	put(t, s, "new", "x")
	filled(t, s)
	if !noSpaceIn(s.View(), s.MemberID()) {
		t.Error("the alarm does not come a second time")
	}
}

// TestQuotaDisarmed: an alarm that was disarmed over the quota comes back with the next command that grows, and not by itself.
func TestQuotaDisarmed(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Quota = 100 << 10 }
	s := h.open()
	defer closeStore(t, s)
	filled(t, s)
	propose(t, s, alarmCommand(pb.AlarmRequest_DEACTIVATE, s.MemberID()))
	for range 3 {
		h.pass(time.Second)
	}
	if len(s.View().Alarms()) > 0 {
		t.Errorf("alarms %v", s.View().Alarms())
	}
	put(t, s, "k0", "short")
	put(t, s, "k0", strings.Repeat("x", 1000))
	if len(s.View().Alarms()) > 0 {
		t.Errorf("alarms %v after an update that there was room for", s.View().Alarms())
	}
	filled(t, s)
	if !noSpaceIn(s.View(), s.MemberID()) {
		t.Error("the alarm has not come back")
	}
}

// TestQuotaAlarmOfOthers: an alarm of somebody who is no member ends when there is room; that of nobody in particular is left to who has raised it.
func TestQuotaAlarmOfOthers(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Quota = 100 << 10 }
	s := h.open()
	defer closeStore(t, s)
	for _, member := range []uint64{s.MemberID(), 0, 77} {
		propose(t, s, alarmCommand(pb.AlarmRequest_ACTIVATE, member))
	}
	h.awaitAlarm(s, s.MemberID(), false)
	h.awaitAlarm(s, 77, false)
	for range 3 {
		h.pass(time.Second)
	}
	if !noSpaceIn(s.View(), 0) {
		t.Error("the alarm of nobody in particular is gone")
	}
	if _, err := tryPut(s, "k", "", 0); !errors.Is(err, mvcc.ErrNoSpace) {
		t.Errorf("create: %v", err)
	}
}

// TestQuotaTooLarge: one object that is larger than all the room there is is refused, and others are not.
func TestQuotaTooLarge(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Quota = 100 << 10 }
	s := h.open()
	defer closeStore(t, s)
	if _, err := tryPut(s, "k", strings.Repeat("x", 100<<10), 0); !errors.Is(err, mvcc.ErrNoSpace) {
		t.Errorf("put: %v", err)
	}
	put(t, s, "k", "x")
}

// TestQuotaAfterACrash: a member that ends between the deletes and their end of the alarm goes on where it was; one with a larger quota, or
// none, finds room.
func TestQuotaAfterACrash(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Quota = 100 << 10 }
	s := h.open()
	filled(t, s)
	crash := func() {
		h.crash(s)
		s = h.open()
	}
	crash()
	if !noSpaceIn(s.View(), s.MemberID()) {
		t.Fatal("the alarm is lost")
	}
	for range 3 {
		h.pass(time.Second)
	}
	if !noSpaceIn(s.View(), s.MemberID()) {
		t.Fatal("the alarm is gone though nothing else is")
	}
	for i := range 20 {
		propose(t, s, deleteCommand(fmt.Sprintf("k%d", i)))
	}
	crash()
	h.awaitAlarm(s, s.MemberID(), false)
	filled(t, s)
	h.adjust = nil
	crash()
	defer closeStore(t, s)
	h.awaitAlarm(s, s.MemberID(), false)
	put(t, s, "new", "x")
}

// TestQuotaPerMember: each member raises its own alarm by its own quota, whoever takes the writes; while it stands, all refuse what grows
// and let the rest through. It lowers it when there is room, and the leader does if it is gone.
func TestQuotaPerMember(t *testing.T) { synctest.Test(t, testQuotaPerMember) }

func testQuotaPerMember(t *testing.T) {
	c := newCluster(t, 3, func(i int, cfg *Config) {
		if cfg.Quota = 1 << 20; i == 1 {
			cfg.Quota = 100 << 10
		}
	})
	c.leader()
	small := c.stores[1].MemberID()
	alarmed := func(s *Store) func() bool { return func() bool { return noSpaceIn(s.View(), small) } }
	fill := func() (n int) {
		for ; n < 1000; n++ {
			switch _, err := tryPut(c.stores[0], fmt.Sprintf("k%d", n), strings.Repeat("x", 1000), 0); {
			case errors.Is(err, mvcc.ErrNoSpace):
				return n
			case err != nil:
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // else time stands still, and nobody looks at the quota
		}
		t.Fatal("nothing was refused")
		return 0
	}
	clear := func(n int) {
		for i := range n {
			propose(t, c.stores[0], deleteCommand(fmt.Sprintf("k%d", i)))
		}
	}
	n := fill()
	if n < 90 || len(c.stores[0].View().Alarms()) != 1 || !alarmed(c.stores[0])() {
		t.Errorf("%d objects, alarms %v", n, c.stores[0].View().Alarms())
	}
	for _, s := range c.stores {
		await(t, "the alarm", alarmed(s))
		if _, err := tryPut(s, "new", "", 0); !errors.Is(err, mvcc.ErrNoSpace) {
			t.Errorf("create: %v", err)
		}
		put(t, s, "k0", strings.Repeat("y", 1000))
	}
	clear(n)
	await(t, "the end of the alarm", func() bool { return !alarmed(c.stores[0])() })
	n = fill()
	c.kill(1)
	c.leader()
	clear(n)
	await(t, "the end of the alarm of a member that is down", func() bool { return !alarmed(c.stores[0])() })
	put(t, c.stores[0], "new", "x")
	c.start(1)
	c.leader()
	c.converge()
}

// TestCompactedBefore: what is compacted already costs no entry, and is answered as the log would.
func TestCompactedBefore(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	for i := range 10 {
		put(t, s, "k", fmt.Sprint(i))
	}
	compact := func(rev int64) (mvcc.Result, error) {
		return s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev}}})
	}
	for _, rev := range []int64{-5, 0, 5} { // the first is refused, and 0 is not, as in etcd
		if _, err := compact(rev); (err != nil) != (rev < 0) {
			t.Errorf("compaction at %d: %v", rev, err)
		}
	}
	index := s.View().Index()
	for _, rev := range []int64{-5, 0, 1, 5} {
		if res, err := compact(rev); !errors.Is(err, mvcc.ErrCompacted) || res.Err == nil || res.Revision != 11 {
			t.Errorf("compaction at %d: %+v, %v", rev, res, err)
		}
	}
	if at := s.View().Index(); at != index {
		t.Errorf("the log has grown by %d entries", at-index)
	}
	propose(t, s, Command{Kind: mvcc.KindAlarm, Request: &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: 9, Alarm: pb.AlarmType_CORRUPT}}})
	if _, err := compact(5); !errors.Is(err, mvcc.ErrCorrupt) {
		t.Errorf("compaction of a corrupt cluster: %v", err)
	}
}

// TestNoQuotaIsShown: no quota is shown as etcd shows it.
func TestNoQuotaIsShown(t *testing.T) {
	h, r := newHarness(t), prometheus.NewRegistry()
	h.adjust = func(c *Config) { c.Registerer = r }
	s := h.open()
	defer closeStore(t, s)
	if shown, status := gauge(t, r, "etcd_server_quota_backend_bytes"), s.Status().QuotaBytes; shown != -1 || status != -1 {
		t.Errorf("%v as a metric, %d in the status", shown, status)
	}
}
