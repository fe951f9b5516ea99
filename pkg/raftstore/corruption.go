package raftstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// hashCheck compares the rolling hashes of the members at equal indexes. The leader asks the others for their points every
// hashCheckInterval while it has one that not all of them have agreed to. A difference raises the CORRUPT alarm on those that are not in the
// majority, or on no member in particular (0) if there is none, as in etcd.
type hashCheck struct {
	s       *Store
	running atomic.Bool // one at a time: what it has found out belongs to it
	agreed  uint64      // index up to which all members had equal points
}

// look starts a comparison if one is due. It does not wait for it.
func (c *hashCheck) look() {
	s := c.s
	if s.lead.Load().leader != s.id.member || len(s.cluster.Load().Members()) < 2 || !c.running.CompareAndSwap(false, true) {
		return
	}
	s.running.Go(func() {
		defer c.running.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.requestTimeout())
		defer cancel()
		c.compare(ctx)
	})
}

// compare asks all members and raises the alarms.
func (c *hashCheck) compare(ctx context.Context) {
	s := c.s
	mine := s.hashes.above(c.agreed)
	if len(mine) == 0 {
		return
	}
	members := s.cluster.Load().Members()
	rings := map[uint64][]hashPoint{s.id.member: mine}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, m := range members {
		if id := uint64(m.ID); id != s.id.member {
			asked.Go(func() {
				answer, err := s.ask(ctx, id, callHashes, nil)
				if err != nil {
					return // compared once it answers
				}
				if points, err := decodeHashes(answer); err == nil {
					mu.Lock()
					defer mu.Unlock()
					rings[id] = points
				}
			})
		}
	}
	asked.Wait()
	agreed, found := judgeHashes(mine, rings, len(members))
	c.agreed = max(c.agreed, agreed)
	if found != nil {
		s.cfg.OnEvent(*found)
		s.alarmCorrupt(ctx, found.Suspects)
	}
}

// judgeHashes compares the rings at the indexes of the leader's points, mine. It answers the highest index that all members agree on, and
// the first that some differ at.
func judgeHashes(mine []hashPoint, rings map[uint64][]hashPoint, members int) (agreed uint64, found *HashMismatch) {
	for _, at := range mine {
		byHash := make(map[uint64][]uint64)
		answers := 0
		for id, ring := range rings {
			if i, ok := slices.BinarySearchFunc(ring, at.index, func(p hashPoint, index uint64) int {
				switch {
				case p.index < index:
					return -1
				case p.index > index:
					return 1
				}
				return 0
			}); ok {
				byHash[ring[i].hash] = append(byHash[ring[i].hash], id)
				answers++
			}
		}
		if len(byHash) > 1 {
			return agreed, &HashMismatch{Index: at.index, Members: byHash, Suspects: suspects(byHash, members)}
		}
		if answers == members {
			agreed = at.index
		}
	}
	return agreed, nil
}

// suspects are the members outside of the majority, or 0 alone if there is no majority.
func suspects(byHash map[uint64][]uint64, members int) []uint64 {
	var rest []uint64
	majority := false
	for _, ids := range byHash {
		if len(ids) > members/2 {
			majority = true
		} else {
			rest = append(rest, ids...)
		}
	}
	if !majority {
		return []uint64{0}
	}
	slices.Sort(rest)
	return rest
}

// alarmCorrupt raises the alarm on members that do not have it yet.
func (s *Store) alarmCorrupt(ctx context.Context, members []uint64) {
	for _, id := range members {
		if corruptIn(s.View(), id) {
			continue
		}
		// What gets lost is found again.
		_ = s.proposeOwn(ctx, Command{Kind: mvcc.KindAlarm, Request: &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{
			MemberID: id, Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT}}})
	}
}

// Corrupt tells whether the CORRUPT alarm names this member: its data differ from those of the others, and nobody should read them.
func (s *Store) Corrupt() bool { return corruptIn(s.View(), s.id.member) }

func corruptIn(v *mvcc.View, member uint64) bool {
	for _, a := range v.Alarms() {
		if a.GetAlarm() == pb.AlarmType_CORRUPT && a.GetMemberID() == member {
			return true
		}
	}
	return false
}

// HashMismatch: members came to different states from the same log.
type HashMismatch struct {
	Index    uint64
	Members  map[uint64][]uint64 // by hash
	Suspects []uint64            // 0: nobody knows who
}

func (e HashMismatch) String() string {
	var groups []string
	for hash, ids := range e.Members {
		slices.Sort(ids)
		names := make([]string, len(ids))
		for i, id := range ids {
			names[i] = types.ID(id).String()
		}
		groups = append(groups, fmt.Sprintf("%s have %016x", strings.Join(names, ", "), hash))
	}
	slices.Sort(groups)
	return fmt.Sprintf("the state at entry %d differs between members: %s", e.Index, strings.Join(groups, "; "))
}

// hashDue says whether the rolling hash at an index is kept for comparison.
func hashDue(index uint64, r *pb.InternalRaftRequest) bool {
	return index%hashInterval == 0 || r != nil && r.Compaction != nil
}

// lookAtHashes is the ticker's part.
func (k *ticker) lookAtHashes(now time.Time) {
	if now.Sub(k.hashed) >= hashCheckInterval {
		k.hashed = now
		k.s.hashCheck.look()
	}
}
