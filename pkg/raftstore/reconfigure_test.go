package raftstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
)

// later moves the clock by a second: the ID of a member is made of its URLs and the time.
func (h *harness) later() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(time.Second)
}

func ids(members []membership.Member) (ids []uint64) {
	for _, m := range members {
		ids = append(ids, uint64(m.ID))
	}
	return ids
}

// TestRefusalsOfReconfiguration: what a lone member answers, one after the other. The order of the checks is etcd's; see
// TestMemberScript of test/conformance/script for the same against a real one.
func TestRefusalsOfReconfiguration(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	ctx, self := context.Background(), s.MemberID()
	learner, all, err := s.AddMember(ctx, []string{"http://127.0.0.1:2"}, true)
	if err != nil || len(all) != 2 || !learner.IsLearner || !slices.Contains(ids(all), uint64(learner.ID)) {
		t.Fatalf("add learner: %+v, %+v, %v", learner, all, err)
	}
	put(t, s, "a", "beside a learner")
	h.later()
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"second learner", func() error { _, _, err := s.AddMember(ctx, []string{"http://127.0.0.1:3"}, true); return err }, membership.ErrTooManyLearners},
		{"taken URL", func() error { _, _, err := s.AddMember(ctx, []string{"http://127.0.0.1:2"}, false); return err }, membership.ErrPeerURLExists},
		{"promote one that lags", func() error { _, err := s.PromoteMember(ctx, uint64(learner.ID)); return err }, membership.ErrLearnerNotReady},
		{"promote nobody", func() error { _, err := s.PromoteMember(ctx, 7); return err }, membership.ErrIDNotFound},
		{"promote a voter", func() error { _, err := s.PromoteMember(ctx, self); return err }, membership.ErrMemberNotLearner},
		{"remove nobody", func() error { _, err := s.RemoveMember(ctx, 7); return err }, membership.ErrIDNotFound},
		{"remove the last voter", func() error { _, err := s.RemoveMember(ctx, self); return err }, membership.ErrNotEnoughStartedMembers},
		{"update nobody", func() error { _, err := s.UpdateMember(ctx, 7, []string{"http://127.0.0.1:7"}); return err }, membership.ErrIDNotFound},
		{"update to a taken URL", func() error { _, err := s.UpdateMember(ctx, self, []string{"http://127.0.0.1:2"}); return err }, membership.ErrPeerURLExists},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if all, err = s.UpdateMember(ctx, self, []string{"http://127.0.0.1:9"}); err != nil || len(all) != 2 {
		t.Errorf("update: %+v, %v", all, err)
	}
	if all, err = s.RemoveMember(ctx, uint64(learner.ID)); err != nil || !slices.Equal(ids(all), []uint64{self}) {
		t.Errorf("remove: %+v, %v", all, err)
	}
	if all[0].PeerURLs[0] != "http://127.0.0.1:9" {
		t.Errorf("URL %v", all[0].PeerURLs)
	}
	if _, err := s.RemoveMember(ctx, uint64(learner.ID)); !errors.Is(err, membership.ErrIDRemoved) {
		t.Errorf("remove again: %v", err)
	}
	h.later()
	if _, _, err = s.AddMember(ctx, []string{"http://127.0.0.1:2"}, true); err != nil {
		t.Errorf("the URL of a member that is gone: %v", err)
	}
}

// TestChangesOneAfterTheOther: raft refuses a change while the one before is not applied, silently. So an answer must mean that the next
// will do.
func TestChangesOneAfterTheOther(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	for i := range 50 {
		m, _, err := s.AddMember(context.Background(), []string{"http://127.0.0.1:2"}, true)
		if err != nil {
			t.Fatalf("%d: add: %v", i, err)
		}
		put(t, s, "a", "1")
		if _, err := s.RemoveMember(context.Background(), uint64(m.ID)); err != nil {
			t.Fatalf("%d: remove: %v", i, err)
		}
		h.later()
	}
}

// TestMembersSurviveRestart: of the log, and of a checkpoint.
func TestMembersSurviveRestart(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	m, _, err := s.AddMember(context.Background(), []string{"http://127.0.0.1:2"}, true)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = h.open()
	defer closeStore(t, s)
	if got := s.Members(); !slices.Contains(ids(got), uint64(m.ID)) {
		t.Errorf("members %+v lack %s", got, m.ID)
	}
}

// TestOpenRefusesRemoved: a member that was removed stops, and its data dir is of no use any more.
func TestOpenRefusesRemoved(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	// Raft has no way to remove the last voter, so the change is applied to the membership alone.
	s.apply.mu.Lock()
	s.apply.cluster = membership.NewCluster(s.apply.cluster.ID, nil, []types.ID{types.ID(s.MemberID())})
	s.apply.membersChanged()
	s.apply.mu.Unlock()
	select {
	case <-s.Removed():
	case <-time.After(time.Minute):
		t.Fatal("the member goes on")
	}
	put(t, s, "a", "1") // else there is nothing to check point
	closeStore(t, s)
	if _, err := Open(h.config()); !errors.Is(err, ErrRemoved) {
		t.Errorf("open: %v", err)
	}
}

// TestLeaderIsAskedAgain: a promotion on a member that does not lead goes to the leader, until one answers.
func TestLeaderIsAskedAgain(t *testing.T) {
	h := newHarness(t)
	network := &fakeNetwork{}
	h.adjust = func(c *Config) { c.Connect = network.connect }
	s := h.open()
	defer closeStore(t, s)
	follow(s, 42)
	var asked int
	network.answer = func(_ context.Context, id uint64, name string, request []byte) ([]byte, error) {
		if asked++; asked < 3 {
			return nil, errors.New("not now")
		}
		if id != 42 || name != callPromote || len(request) != 8 || request[0] != 7 {
			t.Errorf("call %q of %d: %x", name, id, request)
		}
		return []byte(`[{"id":7},{"id":42}]`), nil
	}
	all, err := s.PromoteMember(context.Background(), 7)
	if err != nil || !slices.Equal(ids(all), []uint64{7, 42}) || asked != 3 {
		t.Errorf("promote: %+v, %v, after %d attempts", all, err, asked)
	}
	network.answer = func(context.Context, uint64, string, []byte) ([]byte, error) {
		return nil, membership.ErrLearnerNotReady
	}
	if _, err := s.PromoteMember(context.Background(), 7); !errors.Is(err, membership.ErrLearnerNotReady) {
		t.Errorf("promote: %v", err)
	}
}

// fakeNetwork is a network of one place, as the test wants it.
type fakeNetwork struct {
	nobody
	mu     sync.Mutex
	active map[uint64]time.Time
	answer func(ctx context.Context, id uint64, name string, request []byte) ([]byte, error)
}

func (n *fakeNetwork) connect(uint64, uint64, transport.Handler) (Peers, error) { return n, nil }

func (n *fakeNetwork) ActiveSince(id uint64) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.active[id]
}

func (n *fakeNetwork) Call(ctx context.Context, id uint64, name string, request []byte) ([]byte, error) {
	return n.answer(ctx, id, name, request)
}

// follow makes a store believe that another member leads. It lasts until raft says otherwise, which it does only if something changes.
func follow(s *Store, leader uint64) {
	s.onNode(context.Background(), func(*raft.RawNode) {
		s.lead.Store(&leadership{leader: leader, term: s.lead.Load().term})
		s.leases.demote()
	})
}
