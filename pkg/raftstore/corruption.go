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

// comparison finds members whose state is not that of the others. The leader asks them for two things: the rolling hashes at equal
// indexes, every hashCheckInterval while it has one that not all have agreed to; and, if the Config wants it, a hash over the rows
// themselves. A difference raises the CORRUPT alarm on those that are not in the majority, or on no member in particular (0) if there is
// none, as in etcd.
type comparison struct {
	s       *Store
	running atomic.Bool // one at a time: what it has found out belongs to it

	// The ticker's: when each was begun last.
	hashedAt, rowsAt, compactedAt time.Time

	agreed    uint64        // index up to which all members had equal hashes
	compacted mvcc.Revision // the last compaction that they had equal rows after
}

// look starts what is due. It does not wait for it.
func (c *comparison) look(now time.Time) {
	s := c.s
	if s.soleVoter.Load() || s.lead.Load().leader != s.id.member {
		return
	}
	due := func(last time.Time, every time.Duration) bool { return every > 0 && now.Sub(last) >= every }
	hashes := due(c.hashedAt, hashCheckInterval)
	rows, compacted := due(c.rowsAt, s.cfg.CorruptCheckInterval), due(c.compactedAt, s.cfg.CompactCheckInterval)
	if !hashes && !rows && !compacted || !c.running.CompareAndSwap(false, true) {
		return
	}
	if hashes {
		c.hashedAt = now
	}
	if rows {
		c.rowsAt = now
	}
	if compacted {
		c.compactedAt = now
	}
	s.running.Go(func() {
		defer c.running.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.requestTimeout())
		defer cancel()
		if hashes {
			c.compareHashes(ctx)
		}
		if rows || compacted && s.View().Compacted() > c.compacted {
			c.compareRows(ctx)
		}
	})
}

// askAll asks all other members, and gives the answers of those that answered.
func (s *Store) askAll(ctx context.Context, name string, request []byte) map[uint64][]byte {
	answers := make(map[uint64][]byte)
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, m := range s.cluster.Load().Members() {
		if id := uint64(m.ID); id != s.id.member {
			asked.Go(func() {
				if answer, err := s.ask(ctx, id, name, request); err == nil {
					mu.Lock()
					defer mu.Unlock()
					answers[id] = answer
				}
			})
		}
	}
	asked.Wait()
	return answers
}

// compareHashes compares the points of all members at equal indexes.
func (c *comparison) compareHashes(ctx context.Context) {
	s := c.s
	mine := s.hashes.above(c.agreed)
	if len(mine) == 0 {
		return
	}
	members := len(s.cluster.Load().Members())
	rings := map[uint64][]hashPoint{s.id.member: mine}
	for id, answer := range s.askAll(ctx, callHashes, nil) { // who does not answer is compared once it does
		if points, err := decodeHashes(answer); err == nil {
			rings[id] = points
		}
	}
	agreed, found := judgeHashes(mine, rings, members)
	c.agreed = max(c.agreed, agreed)
	s.report(ctx, found)
}

// report raises the alarms.
func (s *Store) report(ctx context.Context, found *HashMismatch) {
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

// soundness ends when this member turns out to be corrupt.
type soundness struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func newSoundness() *soundness {
	ctx, end := context.WithCancelCause(context.Background())
	return &soundness{ctx, end}
}

// Sound gives a context that ends, with mvcc.ErrCorrupt as its cause, once Corrupt is true.
func (s *Store) Sound() context.Context { return s.sound.Load().ctx }

// lookAtAlarms follows the alarms of a View that was published. Who applies calls it.
func (s *Store) lookAtAlarms(v *mvcc.View) {
	switch sound := s.sound.Load(); {
	case corruptIn(v, s.id.member):
		sound.end(mvcc.ErrCorrupt)
	case sound.ctx.Err() != nil:
		s.sound.Store(newSoundness())
	}
}

func corruptIn(v *mvcc.View, member uint64) bool {
	for _, a := range v.Alarms() {
		if a.GetAlarm() == pb.AlarmType_CORRUPT && a.GetMemberID() == member {
			return true
		}
	}
	return false
}

// HashMismatch: members came to different states from the same log. Either Index or Revision says at which point.
type HashMismatch struct {
	Index    uint64
	Revision mvcc.Revision
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
	if e.Index == 0 {
		return fmt.Sprintf("the rows at revision %d differ between members: %s", e.Revision, strings.Join(groups, "; "))
	}
	return fmt.Sprintf("the state at entry %d differs between members: %s", e.Index, strings.Join(groups, "; "))
}

// hashDue says whether the rolling hash at an index is kept for comparison.
func hashDue(index uint64, r *pb.InternalRaftRequest) bool {
	return index%hashInterval == 0 || r != nil && r.Compaction != nil
}
