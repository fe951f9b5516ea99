//go:build robustness

package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/kubeshim/shim/test/robustness/history"
)

const (
	// roamers are clients that take another member for each call, beside one client of each member.
	roamers = 3
	// callTimeout is longer than what a member takes to give up by itself, which is 7 s.
	callTimeout = 15 * time.Second
	// thinkTime is between two calls of a client, so that histories stay short.
	thinkTime = 4 * time.Millisecond
	// staleReads is the share of gets that may be of the past: one of so many.
	staleReads = 4
)

// load is clients and watchers at work on a cluster, and what they were told.
type load struct {
	c    *cluster
	rec  *history.Recording
	seed uint64
	rng  *rand.Rand
	// roaming leads to all members in turn, call by call and stream by stream.
	roaming *grpc.ClientConn
	targets *manual.Resolver

	mu       sync.Mutex // of the lists, which only the test changes
	watchers []*history.Watcher
	left     []*history.Watcher // that ended with their member

	watching, working      context.Context
	stopWatching, stopWork context.CancelFunc
	watchersDone           sync.WaitGroup
	clientsDone            sync.WaitGroup
	clients                int
	pinned                 map[*member]context.CancelFunc // ends the clients and the watches of a member
}

// newLoad puts a cluster to work.
func newLoad(t *testing.T, c *cluster) *load {
	t.Helper()
	if *seedFlag != 0 {
		return startLoad(t, c, *seedFlag)
	}
	return startLoad(t, c, uint64(time.Now().UnixNano()))
}

func startLoad(t *testing.T, c *cluster, seed uint64) *load {
	t.Helper()
	t.Logf("load: seed %d", seed)
	l := &load{c: c, rec: history.NewRecording(), seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), pinned: make(map[*member]context.CancelFunc)}
	l.watching, l.stopWatching = context.WithCancel(context.Background())
	l.working, l.stopWork = context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.stopWork()
		l.stopWatching()
		l.clientsDone.Wait()
		l.watchersDone.Wait()
	})
	l.targets = manual.NewBuilderWithScheme("members")
	l.targets.InitialState(l.addresses())
	l.roaming = c.dial("members:///all", grpc.WithResolvers(l.targets), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))

	all := history.WatchSpec{Name: "everything", Key: "\x00", End: "\x00", From: 1, Prev: true}
	l.watch(l.watching, l.roaming, true, all, history.WatchSpec{Name: "one key", Key: "k/1", From: 1, Prev: true, ClientsID: 77})
	l.watch(l.watching, l.roaming, false, history.WatchSpec{Name: "pairs in fragments", Key: "m/", End: "m0", From: 1, Fragment: true, Prev: true})
	for range roamers {
		l.work(l.working, l.roaming)
	}
	for _, m := range c.members {
		l.add(m, 1)
	}
	return l
}

func (l *load) addresses() (s resolver.State) {
	for _, m := range l.c.members {
		s.Addresses = append(s.Addresses, resolver.Address{Addr: m.host.Addr(clientPort)})
	}
	return s
}

// add gives a member a client of its own, and watches from a revision on; 0: from now on.
func (l *load) add(m *member, from int64) {
	l.targets.UpdateState(l.addresses())
	watching, stopWatching := context.WithCancel(l.watching)
	first := len(l.watchers)
	l.watch(watching, m.conn, false,
		history.WatchSpec{Name: "everything at " + m.name, Key: "\x00", End: "\x00", From: from, Prev: true},
		history.WatchSpec{Name: "plain keys at " + m.name, Key: "k/", End: "k0", From: from, Notify: true})
	l.watch(watching, m.conn, true, history.WatchSpec{Name: "deletions at " + m.name, Key: "k/", End: "k0", From: from, NoPut: true, Prev: true})
	mine := slices.Clone(l.watchers[first:])
	working, stopWork := context.WithCancel(l.working)
	l.work(working, m.conn)
	l.pinned[m] = func() {
		stopWork()
		stopWatching()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left = append(l.left, mine...)
		l.watchers = slices.DeleteFunc(l.watchers, func(w *history.Watcher) bool { return slices.Contains(mine, w) })
	}
}

func (l *load) watch(ctx context.Context, conn *grpc.ClientConn, requireLeader bool, specs ...history.WatchSpec) {
	w := history.NewWatchClient(conn, l.c.t.Errorf, specs...)
	w.RequireLeader = requireLeader
	l.mu.Lock()
	l.watchers = append(l.watchers, w.Watchers...)
	l.mu.Unlock()
	l.watchersDone.Go(func() { w.Run(ctx) })
}

func (l *load) client(conn *grpc.ClientConn, timeout time.Duration) *history.Client {
	l.clients++
	return history.NewClient(l.clients, l.rec, conn, history.ClientOptions{Seed: l.seed, Safe: l.safe, Timeout: timeout, Stale: staleReads, Think: thinkTime})
}

func (l *load) work(ctx context.Context, conn *grpc.ClientConn) {
	client := l.client(conn, callTimeout)
	l.clientsDone.Go(func() { client.Run(ctx) })
}

// safe is up to where may be compacted: what all watchers have seen.
func (l *load) safe() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	rev := l.watchers[0].Position()
	for _, w := range l.watchers {
		rev = min(rev, w.Position())
	}
	return rev - 1
}

// more awaits n answers from now on.
func (l *load) more(n int64) {
	l.c.t.Helper()
	awaitAnswers(l.c.t, l.rec, n)
}

// firstWrite is when the first write of those that are tried at these members from now on is acknowledged.
func (l *load) firstWrite(at []*member) time.Duration {
	l.c.t.Helper()
	began := time.Now()
	ctx, cancel := patiently()
	defer cancel()
	done := make(chan time.Duration, len(at))
	for _, m := range at {
		client := l.client(m.conn, 250*time.Millisecond)
		l.clientsDone.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if o := client.Call(&pb.PutRequest{Key: []byte("z/first"), Value: fmt.Appendf(nil, "%s-%d-%d", m.name, began.UnixNano(), i)}); o.Response != nil {
					done <- time.Since(began)
					return
				}
			}
		})
	}
	select {
	case took := <-done:
		return took
	case <-ctx.Done():
		l.c.t.Fatalf("no write is accepted at %s", names(at))
		return 0
	}
}

// longestPause writes at these members until done is closed and one more write was acknowledged, and says how long it was at most between two
// answers of any of them.
func (l *load) longestPause(at []*member, done <-chan struct{}) (longest time.Duration) {
	l.c.t.Helper()
	answers, stop := make(chan time.Time), make(chan struct{})
	defer close(stop)
	for _, m := range at {
		client := l.client(m.conn, callTimeout)
		l.clientsDone.Go(func() {
			for i := 0; ; i++ {
				o := client.Call(&pb.PutRequest{Key: []byte("z/pause"), Value: fmt.Appendf(nil, "%s-%d-%d", m.name, time.Now().UnixNano(), i)})
				if o.Response == nil {
					continue
				}
				select {
				case answers <- time.Now():
				case <-stop:
					return
				}
			}
		})
	}
	failed := time.After(patience)
	for last := time.Now(); ; {
		select {
		case now := <-answers:
			longest, last = max(longest, now.Sub(last)), now
			if done == nil {
				return longest
			}
		case <-done:
			done = nil
		case <-failed:
			l.c.t.Fatalf("no write is accepted at %s", names(at))
		}
	}
}

// finish ends the load, on a cluster whose members are all up and connected, and judges what everybody was told.
func (l *load) finish() {
	t := l.c.t
	t.Helper()
	l.more(100)
	l.stopWork()
	l.clientsDone.Wait()
	final := l.final()
	for _, w := range l.watchers {
		await(t, "watch "+w.Spec.Name, func() bool { return w.Promised() >= final.Header.Revision })
	}
	l.stopWatching()
	l.watchersDone.Wait()
	l.c.agree(final.Header.Revision)
	if !t.Failed() {
		for _, w := range l.left {
			w.EndsEarly = true
		}
		judge(t, l.rec, append(l.watchers, l.left...), final)
	}
}

// final writes a last revision, for which streams without any event wait, and reads everything.
func (l *load) final() *pb.RangeResponse {
	l.c.t.Helper()
	client := l.client(l.roaming, callTimeout)
	for i := 0; ; i++ {
		if o := client.Call(&pb.PutRequest{Key: []byte("z/end"), Value: fmt.Appendf(nil, "end-%d", i)}); o.Response != nil {
			break
		}
		if i == 10 {
			l.c.t.Fatal("no write is accepted at the end")
		}
	}
	var resp *pb.RangeResponse
	surely(l.c.t, "read everything", func(ctx context.Context) (err error) {
		resp, err = pb.NewKVClient(l.roaming).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, grpc.WaitForReady(true))
		return err
	})
	return resp
}
