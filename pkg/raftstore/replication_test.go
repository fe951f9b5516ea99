package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// TestClusterWrites: what is put on any member is there on all, in the same order, and read at once on each.
func TestClusterWrites(t *testing.T) {
	for _, n := range []int{3, 5} {
		runTimeless(t, fmt.Sprint(n), func(t *testing.T) {
			c := newCluster(t, n)
			c.leader()
			var calls sync.WaitGroup
			for i, s := range c.stores {
				calls.Go(func() {
					for j := range 50 {
						put(t, s, fmt.Sprintf("k%d", i), fmt.Sprint(j))
						for _, other := range c.stores {
							if got := get(t, other, fmt.Sprintf("k%d", i)); got != fmt.Sprint(j) {
								t.Errorf("k%d is %s on another member, want %d", i, got, j)
							}
						}
					}
				})
			}
			calls.Wait()
			c.converge()
			if got, want := c.stores[0].View().Revision(), 50*n+1; int(got) != want {
				t.Errorf("revision %d, want %d", got, want)
			}
		})
	}
}

// TestLeaderKilled: the others go on, and the killed one comes back and catches up.
func TestLeaderKilled(t *testing.T) { synctest.Test(t, testLeaderKilled) }

func testLeaderKilled(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	put(t, c.stores[old], "a", "1")
	c.kill(old)
	next := c.leader()
	if got := get(t, c.stores[next], "a"); got != "1" {
		t.Errorf("a = %s after the leader's end", got)
	}
	put(t, c.stores[c.follower()], "a", "2")
	c.start(old)
	c.leader()
	if got := get(t, c.stores[old], "a"); got != "2" {
		t.Errorf("a = %s on the member that came back", got)
	}
	c.converge()
}

// TestAllKilled: what was acknowledged survives the end of all.
func TestAllKilled(t *testing.T) { synctest.Test(t, testAllKilled) }

func testAllKilled(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 20 {
		put(t, c.stores[c.leader()], "a", fmt.Sprint(i))
	}
	for i := range c.stores {
		c.kill(i)
	}
	for i := range c.stores {
		c.start(i)
	}
	c.leader()
	if got := get(t, c.stores[1], "a"); got != "19" {
		t.Errorf("a = %s after all were killed", got)
	}
	c.converge()
}

// TestLeaderCutOff: a leader without the others stops leading, serves no reads, and what it could not commit gives way to what the
// others wrote meanwhile, in its log too.
func TestLeaderCutOff(t *testing.T) { synctest.Test(t, testLeaderCutOff) }

func testLeaderCutOff(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	put(t, c.stores[old], "a", "1")
	c.net.isolate(c.stores[old].id.member)
	lost := make(chan error, 3)
	for i := range cap(lost) {
		go func() { _, err := tryPut(c.stores[old], "b", fmt.Sprint(i), 0); lost <- err }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.stores[old].ReadView(ctx); err == nil {
		t.Error("a leader that is cut off answers a linearizable read")
	}
	next := c.leader(old)
	put(t, c.stores[next], "a", "2")
	for range cap(lost) {
		if err := <-lost; !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrTimeoutConnectionLost) && !errors.Is(err, ErrTimeoutLeaderFail) {
			t.Errorf("a write that cannot be committed ends with %v", err)
		}
	}
	c.net.heal()
	c.leader()
	if got := get(t, c.stores[old], "a"); got != "2" {
		t.Errorf("a = %s on the member that was cut off", got)
	}
	c.converge()
	last, _ := c.stores[next].log.log.LastIndex()
	await(t, "equal logs", func() bool { l, _ := c.stores[old].log.log.LastIndex(); return l >= last })
	for i := range c.stores { // the replaced tail is replaced in the files, too
		c.kill(i)
	}
	for i := range c.stores {
		c.start(i)
	}
	c.leader()
	if got := get(t, c.stores[old], "b"); got == "<none>" {
		t.Logf("b was never committed")
	}
	c.converge()
}

// TestMoveLeader: writes on all members go on while the leadership moves, and nothing gets lost.
func TestMoveLeader(t *testing.T) { synctest.Test(t, testMoveLeader) }

func testMoveLeader(t *testing.T) {
	c := newCluster(t, 3)
	old, next := c.leader(), c.follower()
	if err := c.stores[next].MoveLeader(t.Context(), c.stores[next].id.member); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a follower moves the leader: %v", err)
	}
	if err := c.stores[old].MoveLeader(t.Context(), 77); !errors.Is(err, ErrBadTransferee) {
		t.Errorf("moving to an unknown member: %v", err)
	}
	stop := make(chan struct{})
	var calls sync.WaitGroup
	for i, s := range c.stores {
		calls.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := tryPut(s, fmt.Sprintf("k%d", i), fmt.Sprint(j), 0); err != nil {
					t.Logf("put while the leadership moves: %v", err)
				}
				time.Sleep(time.Millisecond) // else time stands still
			}
		})
	}
	if err := c.stores[old].MoveLeader(t.Context(), c.stores[next].id.member); err != nil {
		t.Errorf("move leader: %v", err)
	}
	if got := c.leader(); got != next {
		t.Errorf("member %d leads, want %d", got, next)
	}
	close(stop)
	calls.Wait()
	c.converge()
}

// TestHandOver: a leader that is stopped leaves another one behind, which no election timeout had to bring.
func TestHandOver(t *testing.T) { synctest.Test(t, testHandOver) }

func testHandOver(t *testing.T) {
	c := newCluster(t, 3, func(_ int, c *Config) { c.ElectionTicks = 20 })
	old := c.leader()
	put(t, c.stores[old], "a", "1")
	term := c.stores[old].lead.Load().term
	if err := c.stores[old].HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := c.leader()
	if next == old || c.stores[next].lead.Load().term != term+1 {
		t.Errorf("member %d leads in term %d after member %d in term %d", next, c.stores[next].lead.Load().term, old, term)
	}
	c.stop(old)
	put(t, c.stores[next], "a", "2")
}

// TestReadIndexRepeated: an answer that gets lost is asked for again, and readers that come meanwhile have it too.
func TestReadIndexRepeated(t *testing.T) { synctest.Test(t, testReadIndexRepeated) }

func testReadIndexRepeated(t *testing.T) {
	c := newCluster(t, 3)
	put(t, c.stores[c.leader()], "a", "1")
	f := c.stores[c.follower()]
	var mu sync.Mutex
	asked := 0
	c.net.setDrop(func(m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if m.GetType() == raftpb.MsgReadIndex {
			asked++
			return asked < 3
		}
		return false
	})
	var readers sync.WaitGroup
	for range 10 {
		readers.Go(func() {
			if got := get(t, f, "a"); got != "1" {
				t.Errorf("a = %s", got)
			}
		})
	}
	readers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if asked < 3 {
		t.Errorf("asked %d times", asked)
	}
}
