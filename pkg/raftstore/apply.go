package raftstore

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// applier owns the state machine and the membership. Whoever holds its mutex may use them: the apply goroutine, or with one voter the
// node's turn, which applies in place what is committed; the goroutine is then left with the removal of compacted versions and what
// the checkpoint wants. Per batch of committed entries: apply them all, publish
// one View, append the events, answer the calls, tell raft (I4). Between batches it removes compacted versions in bounded slices.
type applier struct {
	s     *Store
	inbox *mailbox[applyTask]
	wake  chan struct{}

	mu     sync.Mutex   // All below belongs to who holds it (and to Open before anything starts).
	wanted atomic.Int32 // turns that wait for mu

	state          *mvcc.State
	cluster        *membership.Cluster
	compacting     bool
	evicting       bool          // versions are leaving memory
	blocked        bool          // they were, and those that are left have to be in a checkpoint first
	lost           bool          // an entry could not be applied: nothing is any more
	compacted      mvcc.Revision // removal up to here is complete
	compactWaiters []compactWaiter
	alarmed        bool            // alarms have changed since the last publish
	ended          []chan struct{} // of leases that were revoked since then

	request *pb.InternalRaftRequest // of the last entry; nil: it had none
	decoder mvcc.Decoder            // for entries whose call is not here: nothing of theirs is kept
	ids     []uint64
	waiting []*waiter
	results []mvcc.Result
	changes []func() // answer the calls that changed members, once raft knows of the change
	inputs  []nodeInput
}

// applyTask is a message of raft's with committed entries, or something to do with the state between two batches.
type applyTask struct {
	msg *raftpb.Message
	do  func()
}

type compactWaiter struct {
	rev  mvcc.Revision
	done chan struct{}
}

func newApplier(s *Store) *applier {
	wake := make(chan struct{}, 1)
	return &applier{s: s, wake: wake, inbox: newMailbox[applyTask](0, wake)} // bounded by entriesInFlightMax and bounds.committed
}

// run is the event loop.
func (a *applier) run() {
	for {
		select {
		case <-a.s.stop:
			return
		case <-a.wake:
		}
		for {
			left, more := a.work()
			a.s.node.takeOver(left, more || a.inbox.len() > 0)
			if !more {
				break
			}
			select {
			case <-a.s.stop:
				return
			default:
			}
			if a.wanted.Load() > 0 { // else the mutex would be ours again before the turn is awake
				runtime.Gosched()
			}
		}
	}
}

// work does what is in the inbox and removes one slice of what compaction left. left: something is in the node's inbox; more: there is more
// to remove.
func (a *applier) work() (left, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tasks := a.inbox.take()
	for _, t := range tasks {
		if t.do != nil {
			t.do()
			continue
		}
		inputs := a.message(t.msg)
		a.s.node.inbox.leave(append(inputs, nodeInput{done: posted{applies: 1}})...)
		left = true
	}
	a.inbox.recycle(tasks)
	if a.lost {
		return left, false
	}
	a.compactStep()
	a.evictStep()
	return left, a.compacting || a.evicting
}

// inPlace applies on the goroutine of the turn, and answers what raft is to be told.
func (a *applier) inPlace(m *raftpb.Message) []nodeInput {
	a.wanted.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted.Add(-1)
	return a.message(m)
}

func (a *applier) message(m *raftpb.Message) []nodeInput {
	a.batch(m.GetEntries())
	a.inputs = a.inputs[:0]
	for _, r := range m.GetResponses() {
		a.inputs = append(a.inputs, nodeInput{msg: r})
	}
	// Raft refuses a change while it does not know that the one before is applied; so the answer comes behind the messages that say so.
	for _, answer := range a.changes {
		a.inputs = append(a.inputs, nodeInput{do: func(*raft.RawNode) { answer() }})
	}
	a.changes = a.changes[:0]
	return a.inputs
}

// batch applies committed entries.
func (a *applier) batch(entries []*raftpb.Entry) {
	a.ids, a.waiting, a.results = a.ids[:0], a.waiting[:0], a.results[:0]
	for _, e := range entries {
		a.ids = append(a.ids, requestID(e))
	}
	a.waiting = a.s.waiters.take(a.waiting, a.ids)
	var events []mvcc.Event
	var led bool
	defer func() { clear(a.results) }()
	start, sofar := time.Now(), time.Duration(0)
	for i, e := range entries {
		var req *pb.InternalRaftRequest
		if w := a.waiting[i]; w != nil {
			req = w.request
		}
		res := a.entry(e, req)
		if a.lost = a.lost || a.unreadable(res); a.lost {
			a.abandon()
			return
		}
		now := time.Since(start)
		a.took(a.ids[i], res, now-sofar)
		sofar = now
		a.results = append(a.results, res)
		if i == 0 {
			events = res.Events
		} else {
			events = append(events, res.Events...)
		}
		led = led || e.GetType() == raftpb.EntryNormal && len(e.GetData()) == 0
	}
	a.publish(events)
	if a.s.syncs != nil {
		a.trace(TracedBatch{Began: start, Ended: time.Now(), Entries: len(entries)}, func(i int) (index, term uint64) {
			return entries[i].GetIndex(), entries[i].GetTerm()
		})
	}
	for i, w := range a.waiting {
		switch o := (outcome{result: a.results[i]}); {
		case w == nil:
			continue
		case entries[i].GetType() != raftpb.EntryNormal:
			a.changes = append(a.changes, func() { w.finish(o) })
		default:
			w.finish(o)
		}
		a.waiting[i] = nil
	}
	if led {
		a.s.readyOnce.Do(func() { close(a.s.ready) })
	}
}

// abandon answers the calls of a batch that is not applied to its end. They may have taken effect.
func (a *applier) abandon() {
	for i, w := range a.waiting {
		if w != nil {
			w.finish(outcome{err: ErrStopped})
		}
		a.waiting[i] = nil
	}
}

// publish makes what was applied visible, in the order that I4 wants.
func (a *applier) publish(events []mvcc.Event) {
	view := a.state.Publish()
	a.s.view.Store(view)
	if a.s.cluster.Swap(a.cluster) != a.cluster {
		a.s.setPeers()
	}
	a.s.applied.Store(view.Index())
	a.s.reads.applied(view.Index())
	a.s.metrics.published(view)
	a.crowded()
	if a.alarmed {
		a.alarmed = false
		a.s.lookAtAlarms(view)
	}
	for i, c := range a.ended {
		if c != nil {
			close(c)
		}
		a.ended[i] = nil
	}
	a.ended = a.ended[:0]
	a.s.cfg.OnApply(view, events)
}

// requestID is the ID in the payload of an entry, 0 if it has none. It is the first field of a configuration change, and Frame puts it
// first in a request.
func requestID(e *raftpb.Entry) uint64 {
	const tag = 1<<3 | 0
	data := e.GetData()
	if len(data) < 2 || data[0] != tag {
		return 0
	}
	id, n := binary.Uvarint(data[1:])
	if n <= 0 {
		return 0
	}
	return id
}

// entry applies one entry. req is its decoded form if the proposer is here.
func (a *applier) entry(e *raftpb.Entry, req *pb.InternalRaftRequest) mvcc.Result {
	entry := mvcc.Entry{Index: e.GetIndex(), Term: e.GetTerm()}
	a.request = nil
	var refused error
	switch {
	case e.GetType() != raftpb.EntryNormal:
		refused = a.confChange(e)
	case len(e.GetData()) == 0:
	default:
		if req == nil {
			var err error
			if req, err = a.decoder.Decode(e.GetData()); err != nil {
				panic(fmt.Sprintf("entry %d passed its checksum and does not decode: %v", e.GetIndex(), err))
			}
		}
		entry.Request, a.request = req, req
	}
	res := a.state.Apply(entry)
	if hashDue(entry.Index, entry.Request) {
		a.s.hashes.add(hashPoint{entry.Index, a.state.Hash()})
	}
	if entry.Request != nil {
		a.sideEffects(entry.Request, res)
	} else if e.GetType() != raftpb.EntryNormal {
		res.Err, res.Response = refused, a.cluster.Members()
	}
	return res
}

// sideEffects are what an applied request means outside of the state machine.
func (a *applier) sideEffects(r *pb.InternalRaftRequest, res mvcc.Result) {
	a.s.metrics.applied(r, res)
	if res.Err != nil {
		return
	}
	switch {
	case r.ClusterMemberAttrSet != nil:
		attr := r.ClusterMemberAttrSet.GetMemberAttributes()
		a.cluster = a.cluster.ApplyAttributes(types.ID(r.ClusterMemberAttrSet.GetMember_ID()), attr.GetName(), attr.GetClientUrls())
	case r.LeaseGrant != nil:
		if g, ok := res.Response.(*mvcc.LeaseGrantResult); ok {
			a.s.leases.granted(g.ID, g.TTL, 0, a.s.cfg.Now())
		}
	case r.LeaseRevoke != nil:
		a.ended = append(a.ended, a.s.leases.revokedLease(mvcc.LeaseID(r.LeaseRevoke.GetID())))
	case r.LeaseCheckpoint != nil:
		for _, c := range r.LeaseCheckpoint.GetCheckpoints() {
			a.s.leases.checkpointed(mvcc.LeaseID(c.GetID()), c.GetRemaining_TTL(), a.s.cfg.Now())
		}
	case r.Compaction != nil:
		a.compacting = true
		poke(a.wake)
	case r.AuthDisable != nil, r.AuthUserDelete != nil, r.AuthUserChangePassword != nil, r.Authenticate != nil:
		a.tokens(r, res)
	case r.Alarm != nil && r.Alarm.GetAction() != pb.AlarmRequest_GET:
		a.alarmed = true
		if res, ok := res.Response.(*mvcc.AlarmResult); ok {
			for _, m := range res.Alarms {
				a.s.cfg.OnEvent(AlarmChanged{Alarm: m.GetAlarm().String(), Member: types.ID(m.GetMemberID()),
					Raised: r.Alarm.GetAction() == pb.AlarmRequest_ACTIVATE})
			}
		}
	}
}

// tokens tells the table of tokens what an applied request means to it. A replay does not: tokens end with the process.
func (a *applier) tokens(r *pb.InternalRaftRequest, res mvcc.Result) {
	table := a.s.cfg.Tokens
	switch {
	case a.s.node == nil:
	case r.AuthDisable != nil:
		table.InvalidateAll()
	case r.AuthUserDelete != nil:
		table.Invalidate(r.AuthUserDelete.GetName())
	case r.AuthUserChangePassword != nil:
		table.Invalidate(r.AuthUserChangePassword.GetName())
	case r.Authenticate != nil:
		if given, ok := res.Response.(*mvcc.AuthenticateResult); ok && given.Token != "" {
			table.Assign(r.Authenticate.GetName(), given.Token, a.state.Index())
		}
	}
}

// confChange applies a configuration change to the membership, and passes it to raft unless it was refused, which is the error.
func (a *applier) confChange(e *raftpb.Entry) error {
	cc := &raftpb.ConfChange{}
	if e.GetType() != raftpb.EntryConfChange {
		panic(fmt.Sprintf("entry %d has type %v, which nothing here writes", e.GetIndex(), e.GetType()))
	}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		panic(fmt.Sprintf("configuration change %d passed its checksum and does not decode: %v", e.GetIndex(), err))
	}
	next, err := a.cluster.Apply(cc)
	a.s.cfg.OnEvent(MembersChanged{Change: fmt.Sprintf("%v of %s", cc.GetType(), types.ID(cc.GetNodeId())), Err: err})
	if err != nil {
		cc.NodeId = new(uint64(raft.None)) // raft has to hear of the entry, to know that the next change may be proposed
	}
	a.cluster = next
	a.membersChanged()
	a.s.soleVoter.Store(a.s.alone(next))
	if a.s.node != nil { // not during replay
		a.s.node.inbox.put(nodeInput{do: func(rn *raft.RawNode) { a.s.node.configure(rn, e.GetIndex(), cc) }})
	}
	return err
}

// compactStep removes a slice of what compaction left, one slice per turn of the loop, so that writes come in between.
func (a *applier) compactStep() {
	if !a.compacting {
		return
	}
	start := time.Now()
	done := a.state.CompactStep(compactStepBudget)
	a.s.metrics.compactedSlice(time.Since(start), done)
	if !done {
		return
	}
	a.compacting = false
	a.publish(nil) // views before this one keep the removed versions in memory
	a.compacted = a.s.view.Load().Compacted()
	a.s.cfg.OnEvent(CompactionDone{Revision: a.compacted})
	a.answerCompacted()
}

// answerCompacted answers who waits for a compaction that is done.
func (a *applier) answerCompacted() {
	a.compactWaiters = slices.DeleteFunc(a.compactWaiters, func(w compactWaiter) bool {
		if w.rev > a.compacted {
			return false
		}
		close(w.done)
		return true
	})
}
