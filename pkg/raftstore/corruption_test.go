package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestJudgeHashes: rings are written as index:hash pairs, one per member from 1 on, - for one that does not answer.
func TestJudgeHashes(t *testing.T) {
	ring := func(pairs ...uint64) (points []hashPoint) {
		for i := 0; i < len(pairs); i += 2 {
			points = append(points, hashPoint{pairs[i], pairs[i+1]})
		}
		return points
	}
	for _, c := range []struct {
		what     string
		rings    [][]hashPoint
		members  int
		agreed   uint64
		suspects []uint64
	}{
		{"equal", [][]hashPoint{ring(10, 1, 20, 2), ring(10, 1, 20, 2), ring(10, 1, 20, 2)}, 3, 20, nil},
		{"one behind", [][]hashPoint{ring(10, 1, 20, 2), ring(10, 1), ring(10, 1, 20, 2)}, 3, 10, nil},
		{"one silent", [][]hashPoint{ring(10, 1, 20, 2), nil, ring(10, 1, 20, 2)}, 3, 0, nil},
		{"a follower differs", [][]hashPoint{ring(10, 1, 20, 2), ring(10, 1, 20, 2), ring(10, 1, 20, 3)}, 3, 10, []uint64{3}},
		{"the leader differs", [][]hashPoint{ring(10, 1, 20, 4), ring(10, 1, 20, 2), ring(10, 1, 20, 2)}, 3, 10, []uint64{1}},
		{"two of two", [][]hashPoint{ring(10, 1), ring(10, 2)}, 2, 0, []uint64{0}},
		{"two of three, the third silent", [][]hashPoint{ring(10, 1), ring(10, 2), nil}, 3, 0, []uint64{0}},
		{"three ways", [][]hashPoint{ring(10, 1), ring(10, 2), ring(10, 3)}, 3, 0, []uint64{0}},
		{"two of five", [][]hashPoint{ring(10, 1), ring(10, 2), ring(10, 1), ring(10, 3), ring(10, 1)}, 5, 0, []uint64{2, 4}},
	} {
		rings := make(map[uint64][]hashPoint)
		for i, r := range c.rings {
			rings[uint64(i+1)] = r
		}
		agreed, found := judgeHashes(rings[1], rings, c.members)
		var got []uint64
		if found != nil {
			got = found.Suspects
		}
		if agreed != c.agreed || !slices.Equal(got, c.suspects) {
			t.Errorf("%s: agreed to %d, suspects %v; want %d, %v", c.what, agreed, got, c.agreed, c.suspects)
		}
	}
}

// TestHashRing: it keeps the newest points and loses the oldest, and says the same after encoding.
func TestHashRing(t *testing.T) {
	var r hashRing
	for i := range uint64(hashRingMax + 10) {
		r.add(hashPoint{i + 1, i * i})
	}
	all := r.above(0)
	if len(all) != hashRingMax || all[0].index != 11 {
		t.Errorf("%d points from %d on", len(all), all[0].index)
	}
	if got := r.above(hashRingMax + 8); len(got) != 2 || got[0].index != hashRingMax+9 {
		t.Errorf("above: %v", got)
	}
	if got, err := decodeHashes(encodeHashes(all)); err != nil || !slices.Equal(got, all) {
		t.Errorf("decoded %v, %v", got, err)
	}
	if _, err := decodeHashes(make([]byte, 17)); err == nil {
		t.Error("half a point was decoded")
	}
}

// TestHashesAreTakenAtEqualIndexes: members that get the same entries in other batches have points at the same indexes, with equal hashes.
func TestHashesAreTakenAtEqualIndexes(t *testing.T) {
	var rings [2][]hashPoint
	for i := range rings {
		h := newHarness(t)
		s := h.open()
		for n := range 1500 {
			put(t, s, fmt.Sprint("k", n%7), "v")
		}
		if _, err := s.Propose(context.Background(), compactCommand(900)); err != nil {
			t.Fatal(err)
		}
		rings[i] = s.hashes.above(0)
		closeStore(t, s)
	}
	if !slices.Equal(rings[0], rings[1]) || len(rings[0]) != 2 {
		t.Errorf("%v and %v", rings[0], rings[1])
	}
}

// TestCorruptMemberIsAlarmed: the leader finds the difference, and the member it is about stops answering reads.
func TestCorruptMemberIsAlarmed(t *testing.T) {
	h, network := newHarness(t), &fakeNetwork{}
	h.adjust = func(c *Config) { c.Connect = network.connect }
	s := h.open()
	defer closeStore(t, s)
	var learner membership.Member
	var err error
	if learner, _, err = s.AddMember(context.Background(), []string{"http://127.0.0.1:2"}, true); err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		put(t, s, fmt.Sprint("k", n%7), "v")
	}
	network.answer = func(_ context.Context, id uint64, name string, _ []byte) ([]byte, error) {
		if id != uint64(learner.ID) || name != callHashes {
			t.Errorf("call %q of %x", name, id)
		}
		wrong := s.hashes.above(0)
		wrong[0].hash++
		return encodeHashes(wrong), nil
	}
	s.comparison.compareHashes(context.Background())
	if v := s.View(); !corruptIn(v, 0) { // one against one: nobody knows who
		t.Errorf("alarms %v", v.Alarms())
	}
	if s.Corrupt() {
		t.Error("an alarm of nobody in particular is taken for one of this member")
	}
	s.alarmCorrupt(context.Background(), []uint64{s.MemberID()})
	if !s.Corrupt() {
		t.Error("the alarm of this member is not seen")
	}
}

// falsify lets a follower learn of another value of a than the rest, and answers which follower.
func falsify(t *testing.T, c *cluster) (victim int) {
	t.Helper()
	leader := c.leader()
	put(t, c.stores[leader], "b", "1")
	c.converge()
	victim = c.follower()
	id := c.stores[victim].id.member
	c.net.setTamper(func(m *raftpb.Message) {
		for _, e := range m.GetEntries() {
			if m.GetTo() == id {
				e.Data = bytes.ReplaceAll(e.Data, []byte("truth"), []byte("false"))
			}
		}
	})
	put(t, c.stores[leader], "a", "truth")
	await(t, "the false value", func() bool {
		v := c.stores[victim].View().Get([]byte("a"))
		return v != nil && string(v.Value()) == "false"
	})
	return victim
}

// TestFalsifiedMember: of three members one comes to another state. The leader finds which one, by the hashes of the log at a compaction, by
// the rows each --corrupt-check-time, or by the rows after a compaction; that one is not sound any more, and the others are.
func TestFalsifiedMember(t *testing.T) {
	for _, by := range []string{"hashes", "rows", "rows after a compaction"} {
		runTimeless(t, by, func(t *testing.T) {
			var ahead atomic.Int64
			c := newCluster(t, 3, func(_ int, cfg *Config) {
				cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				switch by {
				case "rows":
					cfg.CorruptCheckInterval = hashCheckInterval / 2
				case "rows after a compaction":
					cfg.CompactCheckInterval = hashCheckInterval / 2
				}
			})
			victim := falsify(t, c)
			sound := c.stores[victim].Sound()
			if by != "rows" {
				if _, err := c.stores[c.leader()].Propose(t.Context(), compactCommand(2)); err != nil {
					t.Fatal(err)
				}
			}
			if by == "hashes" {
				ahead.Store(int64(hashCheckInterval))
			} else { // too soon for the hashes
				ahead.Store(int64(hashCheckInterval * 3 / 4))
			}
			<-sound.Done()
			if err := context.Cause(sound); err != mvcc.ErrCorrupt || !c.stores[victim].Corrupt() {
				t.Errorf("it ends with %v", err)
			}
			what := "the rows at revision"
			if by == "hashes" {
				what = "the state at entry"
			}
			if leader := c.leader(); !c.members[leader].saw(what) {
				t.Errorf("%q is not among the events of the leader: %q", what, c.members[leader].events)
			}
			for i, s := range c.stores {
				await(t, "the alarm", func() bool { return len(s.View().Alarms()) == 1 })
				if (i == victim) != s.Corrupt() || s.Corrupt() != (s.Sound().Err() != nil) {
					t.Errorf("member %d of %d is corrupt: %v", i, victim, s.Corrupt())
				}
			}
			_, err := tryPut(c.stores[c.leader()], "a", "2", 0)
			if !errors.Is(err, mvcc.ErrCorrupt) {
				t.Errorf("a write meanwhile: %v", err)
			}
			disarm := Command{Kind: mvcc.KindAlarm, Request: &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
				MemberID: c.stores[victim].id.member, Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_CORRUPT}}}
			if _, err := c.stores[victim].Propose(t.Context(), disarm); err != nil || c.stores[victim].Sound().Err() != nil {
				t.Errorf("disarmed: %v; %v", err, c.stores[victim].Sound().Err())
			}
		})
	}
}

// TestInitialCorruptCheck: with it a member does not start beside others with other rows, and does beside those with the same.
func TestInitialCorruptCheck(t *testing.T) { synctest.Test(t, testInitialCorruptCheck) }

func testInitialCorruptCheck(t *testing.T) {
	c := newCluster(t, 3, func(_ int, cfg *Config) { cfg.InitialCorruptCheck = true })
	victim := falsify(t, c)
	c.stop(victim)
	if s, err := Open(c.members[victim].config()); !errors.Is(err, ErrInconsistent) {
		if err == nil {
			closeStore(t, s)
		}
		t.Errorf("the false member starts: %v", err)
	}
	leader := c.leader()
	c.stop(leader)
	c.start(leader)
	put(t, c.stores[c.leader()], "a", "2")
	c.converge()
}
