package raftstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// chaos is a cluster whose members are stopped, killed, cut off, added and removed at random, with disks that fill up and hang, while clients write and
// hold leases, over a network that loses, doubles, delays and reorders.
type chaos struct {
	*cluster
	rough atomic.Bool

	mu      sync.Mutex // of stores, for writers, and of all below
	rng     *rand.Rand
	written map[string]bool // true: acknowledged
	extra   int             // members that came and went

	slow [3]atomic.Int64 // how long a sync of a member takes
}

func (c *chaos) intN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// roughPeers is the network as one member has it.
type roughPeers struct {
	Peers
	c *chaos
}

func (p roughPeers) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		if !p.c.rough.Load() {
			p.Peers.Send([]*raftpb.Message{m})
			continue
		}
		switch p.c.intN(20) {
		case 0: // lost
		case 1:
			if m.GetType() != raftpb.MsgProp { // of those the transport makes no second one
				p.Peers.Send([]*raftpb.Message{proto.Clone(m).(*raftpb.Message)})
			}
			p.Peers.Send([]*raftpb.Message{m})
		case 2:
			late, pause := proto.Clone(m).(*raftpb.Message), time.Duration(p.c.intN(60))*time.Millisecond
			go func() { // see testChaos
				time.Sleep(pause)
				p.Peers.Send([]*raftpb.Message{late})
			}()
		default:
			p.Peers.Send([]*raftpb.Message{m})
		}
	}
}

// store is a member that runs, or nil.
func (c *chaos) store() *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[c.rng.IntN(len(c.stores))]
}

// write puts keys of its own, and reads them at any member.
func (c *chaos) write(ctx context.Context, name int) {
	for n := 0; ctx.Err() == nil; n++ {
		s := c.store()
		if s == nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		key := fmt.Sprintf("%d-%d", name, n)
		cmd := putCommand(key, strings.Repeat("v", c.intN(300)))
		call, cancel := context.WithTimeout(ctx, time.Duration(1+c.intN(3000))*time.Millisecond)
		_, err := s.Propose(call, cmd)
		cancel()
		c.mu.Lock()
		c.written[key] = err == nil
		c.mu.Unlock()
		if err == nil {
			c.read(ctx, key)
		}
		time.Sleep(time.Duration(c.intN(5)) * time.Millisecond)
	}
}

func (c *chaos) read(ctx context.Context, key string) {
	s := c.store()
	if s == nil {
		return
	}
	call, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if v, err := s.ReadView(call); err == nil && v.Get([]byte(key)) == nil {
		c.t.Errorf("member %x does not have %s, which was acknowledged before", s.id.member, key)
	}
}

// swap changes which store there is.
func (c *chaos) swap(i int, s *Store) (was *Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.stores[i] = c.stores[i], s
	return was
}

// down ends a member, with or without a goodbye.
func (c *chaos) down(i int, kill bool) {
	s := c.stores[i]
	if kill {
		c.net.port(s.id.member).dead.Store(true)
		c.swap(i, nil)
		c.members[i].crash(s)
		return
	}
	c.swap(i, nil)
	if err := s.Close(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("close: %v", err)
	}
}

func (c *chaos) up(i int) {
	s, err := Open(c.members[i].config())
	if err != nil {
		c.t.Errorf("open member %d: %v", i, err)
		return
	}
	c.swap(i, s)
}

// upAll ends whatever befalls members and network.
func (c *chaos) upAll() {
	c.net.heal()
	c.endFaults()
	for i, s := range c.stores[:3] {
		if s == nil {
			c.up(i)
		}
	}
	time.Sleep(20 * time.Millisecond)
}

// another is a member that joins as a learner, may be promoted, and is removed.
func (c *chaos) another(ctx context.Context) {
	s := c.store()
	if s == nil {
		return
	}
	c.extra++
	url := fmt.Sprintf("http://10.0.1.%d:2380", c.intN(2)) // often the address of one that was removed
	add, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m, all, err := s.AddMember(add, []string{url}, true)
	if err != nil { // maybe it is there all the same, and never comes
		return
	}
	var initial []string
	for _, o := range all {
		name := o.Name
		if o.ID == m.ID || name == "" {
			name = "x" + o.ID.String()
		}
		initial = append(initial, name+"="+o.PeerURLs[0])
	}
	h := newHarness(c.t)
	h.db = filepath.Join(c.t.TempDir(), "db")
	h.adjust = func(cfg *Config) {
		c.members[0].adjust(cfg)
		cfg.Name, cfg.InitialCluster, cfg.PeerURLs, cfg.ClusterState = "x"+m.ID.String(), strings.Join(initial, ","), []string{url}, "existing"
		cfg.FetchMembers = func(context.Context, []string) (types.ID, []membership.Member, error) {
			return types.ID(s.id.cluster), all, nil
		}
	}
	c.mu.Lock()
	c.members, c.stores = append(c.members, h), append(c.stores, nil)
	c.mu.Unlock()
	i := len(c.stores) - 1
	c.up(i)
	time.Sleep(time.Duration(c.intN(1000)) * time.Millisecond)
	if s := c.store(); s != nil && c.intN(2) == 0 {
		_, _ = s.PromoteMember(add, uint64(m.ID))
		time.Sleep(time.Duration(c.intN(300)) * time.Millisecond)
	}
	for gone := false; !gone; {
		if s := c.store(); s != nil {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err := s.RemoveMember(try, uint64(m.ID))
			cancel()
			gone = err == nil || errors.Is(err, membership.ErrIDRemoved)
		}
		c.upAll() // or there may be no majority
	}
	if c.stores[i] != nil {
		c.down(i, false)
	}
	c.mu.Lock()
	c.members, c.stores = c.members[:i], c.stores[:i]
	c.mu.Unlock()
}

// step is one thing that befalls the cluster.
func (c *chaos) step(ctx context.Context) {
	i := c.intN(3)
	s := c.stores[i]
	call, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	switch what := c.intN(30); {
	case s == nil:
		c.up(i)
	case what < 3:
		c.down(i, what < 2)
	case what < 5:
		c.net.isolate(s.id.member)
	case what < 7:
		c.net.heal()
	case what == 7:
		_ = s.Checkpoint(call)
	case what == 8:
		_ = s.Defragment(call)
	case what == 9:
		_, _ = s.Propose(call, Command{Kind: mvcc.KindCompaction, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{
			Revision: max(1, int64(s.View().Revision())-int64(c.intN(200)))}}})
	case what == 10:
		if to := c.store(); to != nil {
			_ = s.MoveLeader(call, to.id.member)
		}
	case what == 11:
		c.another(ctx)
	case what == 12:
		s.versionRoom.set(mvcc.Room{Live: 1 + int64(c.intN(2000)), History: 1 + int64(c.intN(2000))})
	case what < 16:
		_, _ = s.Propose(call, randomCommand(rand.New(rand.NewPCG(uint64(c.intN(1<<30)), 0)), s.View().Revision()))
	case what == 16:
		_, _ = s.LeaseRenew(call, mvcc.LeaseID(1+c.intN(5)))
	case what < 21:
		c.fault(call, i, s)
	default:
		time.Sleep(time.Duration(c.intN(400)) * time.Millisecond)
	}
}

// TestChaos: whatever befalls members and network, what was acknowledged is there, once, and seen by all who ask afterwards; what was not may be
// there, once; and all members come to the same state.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for i := range uint64(*chaosRounds) {
		runTimeless(t, fmt.Sprintf("seed %d", seed+i), func(t *testing.T) { testChaos(t, seed+i) })
	}
}

var chaosRounds = flag.Int("chaos", 2, "how many clusters TestChaos has")

func testChaos(t *testing.T, seed uint64) {
	c := &chaos{rng: rand.New(rand.NewPCG(seed, 0)), written: make(map[string]bool)}
	c.cluster = newCluster(t, 3, func(i int, cfg *Config) {
		if _, bare := cfg.FS.(*vfs.Mem); bare && i < len(c.slow) {
			cfg.FS = vfs.Hooked(cfg.FS, vfs.Hooks{Before: c.hang(i)})
		}
		cfg.SnapshotCatchupEntries, cfg.WALSegmentBytes = 30, 64<<10
		cfg.Checkpoints.DeadRows, cfg.Checkpoints.PartBytes = 7, 4000
		cfg.LeaseCheckpointInterval = time.Second
		cfg.CompactCheckInterval, cfg.CorruptCheckInterval = 2*time.Second, 3*time.Second
		connect := c.connect(cfg.Connect)
		cfg.Connect = connect
	})
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range 3 {
		writers.Go(func() { c.write(ctx, i) })
		writers.Go(func() { c.hold(ctx, i) })
	}
	c.rough.Store(true)
	for range 150 {
		c.step(ctx)
		if t.Failed() {
			break
		}
	}
	stop()
	writers.Wait()
	c.rough.Store(false)
	time.Sleep(100 * time.Millisecond) // what is delayed is on its way then
	c.upAll()
	c.leader()
	for _, s := range c.stores {
		await(t, "a write", func() bool { c.disarm(s); _, err := tryPut(s, "last", "", 0); return err == nil }) // the leader may still change
		await(t, "a read", func() bool { _, err := s.ReadView(t.Context()); return err == nil })
	}
	c.converge()
	v, acknowledged := c.stores[0].View(), 0
	for key, ok := range c.written {
		got := v.Get([]byte(key))
		if ok {
			acknowledged++
		}
		if ok && got == nil || got != nil && got.Num() != 1 {
			t.Errorf("%s, acknowledged %v: %v", key, ok, got)
		}
	}
	installs := 0
	for _, m := range c.members {
		if m.saw("installed a snapshot") {
			installs++
		}
	}
	c.forceNew()
	t.Logf("%d of %d writes acknowledged, revision %d, %d members came and went, %d got snapshots", acknowledged, len(c.written), v.Revision(), c.extra, installs)
}

// forceNew goes on with one member alone, after a failure of the power for all.
func (c *chaos) forceNew() {
	for i := range c.stores {
		c.down(i, true)
	}
	i := c.intN(len(c.members))
	adjust, forced := c.members[i].adjust, true
	c.members[i].adjust = func(cfg *Config) { adjust(cfg); cfg.ForceNewCluster = forced }
	for ; c.stores[i] == nil && !c.t.Failed(); forced = false {
		c.up(i)
		put(c.t, c.stores[i], fmt.Sprint("alone ", forced), "1")
		v := c.stores[i].View()
		for key, ok := range c.written {
			if ok && v.Get([]byte(key)) == nil {
				c.t.Errorf("%s, which was acknowledged, is not there where a new cluster was forced", key)
			}
		}
		if forced {
			c.down(i, true)
		}
	}
}

func (c *chaos) connect(connect func(member, cluster uint64, h transport.Handler) (Peers, error)) func(member, cluster uint64, h transport.Handler) (Peers, error) {
	return func(member, cluster uint64, h transport.Handler) (Peers, error) {
		p, err := connect(member, cluster, h)
		return roughPeers{p, c}, err
	}
}
