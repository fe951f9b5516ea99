package raftstore

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
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
	s.hashCheck.compare(context.Background())
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
