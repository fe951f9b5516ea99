package raftstore

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// node owns the raft state machine. Whoever holds its mutex has the turn: takes what waits, steps raft, and hands out what raft has
// ready.
//
// With several voters a turn never touches a disk and never waits for one: what is to be written goes to the log goroutine, what is
// committed to the apply goroutine, and both answer through the inbox. So whoever brings what raft waits for has the turn at once, if it is
// free, and wakes nobody for it (see kick). With one voter there is nobody to keep waiting, and the node goroutine's turn does both by itself,
// in place; a batch then costs one goroutine to be woken instead of five (see flush).
type node struct {
	s    *Store
	raft *raft.RawNode
	log  *raftLog

	wake      chan struct{}
	inbox     *mailbox[nodeInput]
	proposals *mailbox[proposal]
	inbound   *inbound    // from other members
	forwarded *inbound    // proposals among that
	ticked    atomic.Bool // of Config.Ticks; those that nobody had time for are lost, as with a time.Ticker
	clock     raftClock

	mu sync.Mutex // the turn. All below belongs to who holds it.

	batch           []proposal
	entries         []*raftpb.Entry // of the batch; reused, see propose
	posted          posted
	entriesInFlight int // entries proposed here and not applied
	bytesInFlight   int // their sizes
	campaigned      bool
	dead            bool   // the log failed, or is closed: nothing may come of anything any more
	patient         bool   // who has the turn may wait for a disk
	ticks           uint64 // since the start
	appendedAt      uint64 // ticks when the log goroutine last got on, or had nothing to do
	installing      *install
	configured      uint64 // index of the last snapshot; raft has its configuration, and that of the changes behind it
	lastLeader      uint64 // the last one that there was
	out             []*raftpb.Message
	chatter         chatter
	beats           beats
	pace            pace
	snapshots       snapshotPauses
}

// posted counts the messages of raft's at other goroutines: at the log goroutine (batches: those with entries), at the apply goroutine.
type posted struct{ appends, batches, applies int }

// nodeInput is one of: a message to step, messages posted that are done with, something to do with the raft state machine, a
// snapshot.
type nodeInput struct {
	msg     *raftpb.Message
	done    posted
	do      func(*raft.RawNode)
	install *install
}

// proposal is an entry on its way into the log.
type proposal struct {
	id   uint64 // of the waiter; 0: nobody waits
	data []byte
	pool *[]byte // what data is in, to go back to payloadPool; may be nil
}

func (p proposal) size() int { return len(p.data) + entryOverhead }

// leadership is what the node last knew about the leader.
type leadership struct{ leader, term uint64 }

func newNode(s *Store, log *raftLog, applied uint64) (*node, error) {
	rn, err := raft.NewRawNode(&raft.Config{
		ID:                       s.id.member,
		ElectionTick:             s.cfg.ElectionTicks,
		HeartbeatTick:            1,
		Storage:                  log,
		Applied:                  applied,
		AsyncStorageWrites:       true,
		MaxSizePerMsg:            messageBytesMax,
		MaxCommittedSizePerReady: uint64(s.bounds.committed),
		MaxInflightMsgs:          inflightMsgsMax,
		MaxInflightBytes:         uint64(s.bounds.perMember),
		CheckQuorum:              true,
		PreVote:                  !s.cfg.NoPreVote,
		Logger:                   raftLogger{onEvent: s.cfg.OnEvent},
	})
	if err != nil {
		return nil, err
	}
	wake := make(chan struct{}, 1)
	n := &node{s: s, raft: rn, log: log, wake: wake,
		inbox:     newMailbox[nodeInput](0, wake), // bounded by what the node has in flight
		proposals: newMailbox[proposal](proposalsQueuedMax, wake),
		inbound:   &inbound{wake: wake, bytesMax: s.bounds.inbound}, forwarded: &inbound{wake: wake, bytesMax: s.bounds.inbound},
		pace: pace{wake: wake}, clock: raftClock{began: time.Now()},
	}
	n.mu.Lock() // the turn is Open's until start
	return n, nil
}

// run is the event loop.
func (n *node) run() {
	for {
		n.mu.Lock()
		n.turn(true)
		n.mu.Unlock()
		select {
		case <-n.s.stop:
			return
		case <-n.wake:
		}
	}
}

// kick has a turn on this goroutine, with several voters, unless somebody else has one: that one may have looked already, so the node goroutine has another. The
// caller holds no mutex, and is a goroutine whose panics end the process, which those of net/http's handlers do not.
func (n *node) kick() {
	if n.soleVoter() || !n.mu.TryLock() {
		poke(n.wake)
		return
	}
	defer n.mu.Unlock()
	n.turn(false)
}

// takeOver is kick for a goroutine that has left something in the inbox, unless more waits for that goroutine itself.
func (n *node) takeOver(left, busy bool) {
	switch {
	case !left:
	case busy:
		poke(n.wake)
	default:
		n.kick()
	}
}

// end lets no later turn have any effect.
func (n *node) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
}

// turn goes on until nothing waits that could go on. What came in goes before what is new: so the calls of one batch have their answers
// before the disk works on the next. patient: it may wait for a disk. Else the goroutine is lent by somebody who has other things to do,
// as to read what comes next, or to sync: it gives the rest to the node goroutine after lentRoundsMax.
func (n *node) turn(patient bool) {
	n.patient = patient
	select {
	case <-n.s.failed:
		n.dead = true
	default:
	}
	for rounds := 0; patient || rounds < lentRoundsMax; rounds++ {
		if !n.receive() && !n.flush() && !n.proposeAll() && !n.s.reads.ask(n.raft, n.ticks) && !n.campaignAtOnce() {
			return
		}
	}
	poke(n.wake)
}

// receive steps what is in the inbox.
func (n *node) receive() (any bool) {
	for range n.ticksDue() {
		n.ticks++
		n.raft.Tick()
		n.watchDisk()
		n.endPauses()
	}
	size := 0
	for _, m := range n.inbound.take() {
		if len(m.GetEntries()) > 0 {
			size = n.flushBefore(m, size)
		}
		if m.GetFrom() == n.s.lead.Load().leader {
			n.clock.hear()
		}
		n.chatter.received(m)
		n.endPause(m)
		// One of a former term, or from a member that left, is of no interest; raft says so with an error.
		_ = n.raft.Step(m)
		any = true
	}
	inputs := n.inbox.take()
	for _, in := range inputs {
		n.input(in)
	}
	n.inbox.recycle(inputs)
	return any || len(inputs) > 0
}

// ticksDue is by how many ticks raft's clock is to be moved.
func (n *node) ticksDue() int64 {
	if n.s.cfg.Ticks == nil {
		return n.clock.due(n.s)
	}
	if n.ticked.Swap(false) {
		return 1
	}
	return 0
}

func (n *node) input(in nodeInput) {
	if in.done.appends > 0 {
		n.appendedAt = n.ticks
	}
	n.posted.appends -= in.done.appends
	n.posted.batches -= in.done.batches
	n.posted.applies -= in.done.applies
	if in.do != nil {
		in.do(n.raft)
	}
	if in.install != nil {
		n.install(in.install)
	}
	if in.msg == nil {
		return
	}
	_ = n.raft.Step(in.msg)
	if in.msg.GetType() != raftpb.MsgStorageApplyResp {
		return
	}
	entries := in.msg.GetEntries()
	n.entriesInFlight = max(0, n.entriesInFlight-len(entries))
	for _, e := range entries {
		n.bytesInFlight -= len(e.GetData()) + entryOverhead
	}
	n.bytesInFlight = max(0, n.bytesInFlight)
	keep := n.s.cfg.SnapshotCatchupEntries
	if n.soleVoter() {
		keep = 0
	}
	n.log.dropApplied(entries[len(entries)-1].GetIndex(), keep, n.s.bounds.catchup)
}

// busy: what is new has to wait. There is no leader or it is about to be another one, or enough is in flight.
func (n *node) busy() bool {
	lead := n.s.lead.Load().leader
	if n.dead || lead == raft.None {
		return true
	}
	if !n.soleVoter() && n.raft.BasicStatus().LeadTransferee != raft.None {
		return true
	}
	full := n.posted.batches >= appendsInFlightMax || n.entriesInFlight >= entriesInFlightMax || n.bytesInFlight >= n.s.bounds.inFlight
	if full && lead != n.s.id.member && n.s.waiters.len() == 0 {
		n.forget() // what was sent to the leader and lost is not in flight for ever
		return false
	}
	return full
}

// forget takes all that is in flight for lost.
func (n *node) forget() { n.entriesInFlight, n.bytesInFlight = 0, 0 }

// proposesNext says that this turn will come to propose something.
func (n *node) proposesNext() bool {
	return n.proposals.len() > 0 && !n.busy() && !n.pace.holds(n.waiting())
}

// waiting are the proposals that are not proposed yet, and those of others.
func (n *node) waiting() int { return n.proposals.len() + n.forwarded.entries() }

// proposeAll is propose and proposeForwarded. They are one batch to pace, or one of the two would always find a pause behind the other.
func (n *node) proposeAll() bool {
	waiting := n.waiting()
	if waiting == 0 || n.pace.holds(waiting) {
		return false
	}
	own, others := n.propose(), n.proposeForwarded()
	if taken := waiting - n.waiting(); taken > 0 && !n.soleVoter() { // or more have come meanwhile than were taken: no matter
		n.pace.proposed(taken, n.entriesInFlight)
	}
	return own || others
}

// propose turns what waits in the queue into one step of raft. It holds back while there is no leader, and while enough is in
// flight: then proposals gather in the queue, and the next batch is larger.
func (n *node) propose() (any bool) {
	if n.proposals.len() == 0 || n.busy() {
		return false
	}
	n.batch = n.proposals.takeBatch(n.batch[:0], batchEntriesMax, n.s.bounds.batch, proposal.size)
	if len(n.batch) == 0 {
		return false
	}
	entries := n.entries[:0]
	for i, p := range n.batch {
		if i == len(n.entries) {
			n.entries = append(n.entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum()})
		}
		n.entries[i].Data = p.data
		entries = n.entries[:i+1]
	}
	err := n.raft.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(n.s.id.member), Entries: entries})
	if err == nil {
		n.entriesInFlight += len(entries)
		for _, p := range n.batch {
			n.bytesInFlight += p.size()
		}
	} else {
		if errors.Is(err, raft.ErrProposalDropped) {
			err = ErrNoLeader
		}
		for _, p := range n.batch {
			n.s.waiters.fail(p.id, err)
		}
	}
	n.reclaim(entries)
	clear(n.batch)
	return true
}

// proposeForwarded turns what others have proposed here into one step of raft, as propose does. It counts into what is in flight.
func (n *node) proposeForwarded() bool {
	if n.forwarded.empty() || n.busy() {
		return false
	}
	entries := n.forwarded.takeEntries(batchEntriesMax, n.s.bounds.batch)
	if err := n.raft.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(n.s.id.member), Entries: entries}); err == nil {
		n.entriesInFlight += len(entries)
		for _, e := range entries {
			n.bytesInFlight += entrySize(e)
		}
	}
	return true
}

// reclaim takes the entries and payloads of the batch back. A leader's raft clones what it appends; a follower's passes the entries
// on as they are, so then they are left to the garbage collector.
func (n *node) reclaim(entries []*raftpb.Entry) {
	if n.raft.BasicStatus().RaftState != raft.StateLeader {
		n.entries = nil
		return
	}
	for i, p := range n.batch {
		entries[i].Data = nil
		if p.pool != nil {
			*p.pool = p.data[:0]
			payloadPool.Put(p.pool)
		}
	}
}

// flush hands out what raft has ready. It decides who appends and applies: this turn, in place, if this member is the only voter and
// nothing of the kind is at the goroutine whose work it is otherwise; so each message finds the ones before it done, and becoming the
// only voter, or ceasing to be, needs no more than that. What is committed goes before what is to be appended: it is durable already.
func (n *node) flush() (any bool) {
	if n.dead || !n.raft.HasReady() {
		return false
	}
	rd := n.raft.Ready()
	if rd.HardState != nil && !raft.IsEmptyHardState(rd.HardState) {
		n.s.committed.Store(rd.GetCommit())
	}
	if rd.SoftState != nil || rd.HardState != nil {
		n.observeLeader()
	}
	n.send(rd.Messages)
	for _, rs := range rd.ReadStates {
		n.s.reads.confirm(rs)
	}
	for _, m := range rd.Messages {
		if m.GetTo() == raft.LocalApplyThread {
			n.apply(m)
		}
	}
	for _, m := range rd.Messages {
		if m.GetTo() == raft.LocalAppendThread {
			n.append(m)
		}
	}
	return true
}

// flushBefore hands out what raft has before it steps m, if it may have more with m than the log writes at once: what is written in parts
// raft hears of at their end only, and on a full disk that may be too late. size is of the entries that were stepped since.
func (n *node) flushBefore(m *raftpb.Message, size int) int {
	of := walSize(m.GetEntries())
	if size+of <= n.s.log.appendMax() {
		return size + of
	}
	n.flushAll()
	return of
}

func (n *node) flushAll() {
	for n.flush() {
	}
}

// send gives others their messages, before anything is written here: that is what a leader may do, and what may not be sent before
// comes with the append (I2).
func (n *node) send(messages []*raftpb.Message) {
	for _, m := range messages {
		if m.GetType() == raftpb.MsgHeartbeat && n.beats.late(m.GetTo(), time.Now(), n.s.cfg.TickInterval) {
			n.s.metrics.heartbeatFailures.Inc()
		}
		switch to := m.GetTo(); {
		case to == raft.LocalApplyThread || to == raft.LocalAppendThread:
		case m.GetType() == raftpb.MsgSnap:
			n.s.sendSnapshot(m)
		case n.chatter.redundant(m, n.proposesNext):
		default:
			n.out = append(n.out, m)
		}
	}
	n.sendOut()
}

func (n *node) sendOut() {
	if len(n.out) > 0 {
		n.s.peers.Send(n.out)
		clear(n.out)
		n.out = n.out[:0]
	}
}

// watchDisk gives the leadership away if the log goroutine has not got on for an election timeout: the others commit without this
// member, but its own clients would not hear of it.
func (n *node) watchDisk() {
	if n.posted.appends == 0 {
		n.appendedAt = n.ticks
	}
	if n.ticks-n.appendedAt < uint64(n.s.cfg.ElectionTicks) { // from then on with each tick: right after its check of the quorum raft knows of nobody
		return
	}
	if st := n.raft.BasicStatus(); st.RaftState != raft.StateLeader || st.LeadTransferee != raft.None {
		return
	}
	if to := n.successor(); to != raft.None {
		n.s.cfg.OnEvent(DiskStalled{Transferee: types.ID(to)})
		n.raft.TransferLeader(to)
	}
}

// successor is the voter that follows closest, or none.
func (n *node) successor() (id uint64) {
	var match uint64
	n.raft.WithProgress(func(peer uint64, typ raft.ProgressType, pr tracker.Progress) {
		if typ == raft.ProgressTypePeer && peer != n.s.id.member && pr.RecentActive && pr.Match > match {
			id, match = peer, pr.Match
		}
	})
	return id
}

func (n *node) apply(m *raftpb.Message) {
	if n.patient && n.soleVoter() && n.posted.applies == 0 {
		n.inbox.leave(n.s.apply.inPlace(m)...)
		return
	}
	n.posted.applies++
	n.s.apply.inbox.put(applyTask{msg: m})
}

// append falls back to the log goroutine when the disk is full: that one can wait for room.
func (n *node) append(m *raftpb.Message) {
	if n.patient && n.soleVoter() && n.posted.appends == 0 && m.GetSnapshot() == nil {
		inputs, err := n.s.log.inPlace(m)
		if err == nil {
			n.inbox.leave(inputs...)
			return
		}
		if !errors.Is(err, wal.ErrNoSpace) {
			n.dead = true
			n.s.fail(fmt.Errorf("write the log: %w", err))
			return
		}
	}
	if n.appended(m) {
		return
	}
	n.chatter.acknowledges(m.GetResponses())
	n.posted.appends++
	if len(m.GetEntries()) > 0 {
		n.posted.batches++
	}
	t := logTask{msg: m}
	if m.GetSnapshot() != nil {
		t.install, n.installing = n.installing, nil
		n.configured = m.GetSnapshot().GetMetadata().GetIndex()
	}
	n.s.log.inbox.put(t)
}

// appended is true if there is nothing to write for the message, as with a commit index that moved, and nothing before it is being written.
// The log goroutine need not be woken then.
func (n *node) appended(m *raftpb.Message) bool {
	if n.posted.appends > 0 || len(m.GetEntries()) > 0 || m.GetSnapshot() != nil || !n.s.log.noteCommit(m) {
		return false
	}
	var inputs []nodeInput
	inputs, n.out = n.s.responses(inputs, n.out, m)
	n.out = slices.DeleteFunc(n.out, n.chatter.repeats)
	n.inbox.leave(inputs...)
	n.sendOut()
	return true
}

// configure tells raft of a change that was applied. One that a snapshot has overtaken, which came while it was being applied, is in the
// snapshot's configuration, or was undone in it.
func (n *node) configure(rn *raft.RawNode, index uint64, cc *raftpb.ConfChange) {
	if index > n.configured {
		rn.ApplyConfChange(cc)
	}
}

// observeLeader publishes leader and term when one of them is new.
func (n *node) observeLeader() {
	st := n.raft.BasicStatus()
	was := n.s.lead.Load()
	now := &leadership{leader: st.Lead, term: st.GetTerm()}
	if *was == *now {
		return
	}
	n.chatter.forgetAll()
	n.beats.forgetAll()
	n.snapshots.endAll()
	n.s.setLead(now)
	self := now.leader == n.s.id.member
	if self {
		n.s.leases.promote(n.s.cfg.Now(), n.s.cfg.electionTimeout())
	} else {
		n.s.leases.demote()
	}
	if was.leader == now.leader {
		return
	}
	n.s.metrics.leaderChanged(now.leader, self)
	n.forget()
	if now.leader != 0 {
		n.s.elected.Store(n.s.since(n.s.cfg.Now()))
		if n.lastLeader != 0 && n.lastLeader != now.leader {
			n.s.reads.fail(ErrLeaderChanged)
		}
		n.s.reads.askAgain()
		n.proposals.drop(func(p proposal) bool { return p.id != 0 && !n.s.waiters.waits(p.id) }) // nobody expects of them to take effect so late
		n.lastLeader = now.leader
		n.s.regainLeader()
	}
	n.s.cfg.OnEvent(LeaderChanged{Leader: types.ID(now.leader), Term: now.term, Self: self})
}

// campaignAtOnce makes a sole voter the leader without waiting for an election timeout: there is nobody to wait for. It has to
// wait for the configuration changes of the bootstrap, though.
func (n *node) campaignAtOnce() bool {
	if n.campaigned || !n.soleVoter() {
		return false
	}
	st := n.raft.BasicStatus()
	if st.RaftState != raft.StateFollower || st.Applied < st.GetCommit() {
		return false
	}
	n.campaigned = true
	return n.raft.Campaign() == nil
}

func (n *node) soleVoter() bool { return n.s.soleVoter.Load() }

// poke wakes a goroutine that looks by itself for what to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
