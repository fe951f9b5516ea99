package clients

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// sessionSeconds is short, so that an abandoned session is missed soon.
const sessionSeconds = 3

// workers are goroutines that do rounds until they are told to stop, and whose
// rounds are counted.
type workers struct {
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rounds []atomic.Int64
}

func startWorkers(t testing.TB, n int, round func(ctx context.Context, i int) error) *workers {
	w := &workers{t: t, rounds: make([]atomic.Int64, n)}
	w.ctx, w.cancel = context.WithCancel(within(t))
	for i := range n {
		w.wg.Go(func() {
			for w.ctx.Err() == nil {
				if round(w.ctx, i) == nil {
					w.rounds[i].Add(1)
				}
			}
		})
	}
	t.Cleanup(w.stop)
	return w
}

func (w *workers) stop() {
	w.cancel()
	w.wg.Wait()
}

// progress waits until each has done two more rounds: the one that was under way
// does not count.
func (w *workers) progress(what string) {
	w.t.Helper()
	for i := range w.rounds {
		from := w.rounds[i].Load()
		err := again(w.ctx, func(context.Context) error {
			if n := w.rounds[i].Load(); n < from+2 {
				return fmt.Errorf("worker %d has done %d rounds, and %d before", i, n, from)
			}
			return nil
		})
		if err != nil {
			w.t.Fatalf("after %s: %v", what, err)
		}
	}
}

// eighth is true at each eighth call, the third first.
func eighth() func() bool {
	n := 0
	return func() bool { n++; return n%8 == 3 }
}

// session answers a session that a worker goes on with as long as it is good.
func session(ctx context.Context, cli *clientv3.Client, old *concurrency.Session) (*concurrency.Session, error) {
	if old != nil {
		select {
		case <-old.Done():
		default:
			return old, nil
		}
	}
	one, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	lease, err := cli.Grant(one, sessionSeconds)
	if err != nil {
		return nil, err
	}
	return concurrency.NewSession(cli, concurrency.WithLease(lease.ID), concurrency.WithTTL(sessionSeconds))
}

// tally counts what was done for sure, and what may have been done.
type tally struct{ sure, maybe atomic.Int64 }

func (c *tally) count(err error) {
	if err == nil {
		c.sure.Add(1)
		return
	}
	c.maybe.Add(1)
}

func (c *tally) check(t testing.TB, have int64) {
	t.Helper()
	if sure, maybe := c.sure.Load(), c.maybe.Load(); have < sure || have > sure+maybe {
		t.Errorf("%d, of %d that were answered and %d that were not", have, sure, maybe)
	}
	if c.sure.Load() == 0 {
		t.Error("nothing was done")
	}
}

// addOne adds one to a number, if guard still holds when it is written.
func addOne(ctx context.Context, cli *clientv3.Client, key string, guard clientv3.Cmp, c *tally) error {
	got, err := cli.Get(ctx, key)
	if err != nil {
		return err
	}
	n := 0
	if len(got.Kvs) > 0 {
		if n, err = strconv.Atoi(string(got.Kvs[0].Value)); err != nil {
			return err
		}
	}
	resp, err := cli.Txn(ctx).If(guard).Then(clientv3.OpPut(key, strconv.Itoa(n+1))).Commit()
	if err == nil && !resp.Succeeded {
		return errors.New("the lock was lost")
	}
	c.count(err)
	return err
}

func number(t testing.TB, cli *clientv3.Client, key string) int64 {
	t.Helper()
	got, err := cli.Get(within(t), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(got.Kvs[0].Value), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMutexFaults: who holds the lock adds to a number; none is lost, so nobody
// else held it. One of the workers goes away with the lock, whose lease expires.
func TestMutexFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	var sum tally
	rare := eighth()
	const n = 4
	clis, sessions := make([]*clientv3.Client, n), make([]*concurrency.Session, n)
	for i := range clis {
		clis[i] = c.client()
	}
	w := startWorkers(t, n, func(ctx context.Context, i int) (err error) {
		if sessions[i], err = session(ctx, clis[i], sessions[i]); err != nil {
			return err
		}
		one, cancel := context.WithTimeout(ctx, 4*callLimit)
		defer cancel()
		m := concurrency.NewMutex(sessions[i], "/mutex")
		if err := m.Lock(one); err != nil {
			sessions[i].Orphan()
			return err
		}
		err = addOne(one, clis[i], "sum", m.IsOwner(), &sum)
		if err != nil || i == 0 && rare() { // nobody unlocks
			sessions[i].Orphan()
			return err
		}
		return m.Unlock(one)
	})
	c.disturb(w.progress)
	w.stop()
	sum.check(t, number(t, clis[0], "sum"))
}

// TestElectionFaults: who leads adds to a number and proclaims something. An
// observer sees leaders in the order in which they came, and their proposals in
// the order in which they were made.
func TestElectionFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	var sum tally
	rare := eighth()
	const n = 3
	clis, sessions := make([]*clientv3.Client, n), make([]*concurrency.Session, n)
	for i := range clis {
		clis[i] = c.client()
	}
	watcher := observer{t: t, cli: c.client()}
	w := startWorkers(t, n, func(ctx context.Context, i int) (err error) {
		if sessions[i], err = session(ctx, clis[i], sessions[i]); err != nil {
			return err
		}
		one, cancel := context.WithTimeout(ctx, 4*callLimit)
		defer cancel()
		e := concurrency.NewElection(sessions[i], "/election")
		if err := e.Campaign(one, "0"); err != nil {
			sessions[i].Orphan()
			return err
		}
		err = addOne(one, clis[i], "sum", clientv3.Compare(clientv3.CreateRevision(e.Key()), "=", e.Rev()), &sum)
		if err == nil {
			err = e.Proclaim(one, fmt.Sprint(i))
		}
		if err != nil || i == 0 && rare() {
			sessions[i].Orphan()
			return err
		}
		return e.Resign(one)
	})
	watcher.start(w)
	c.disturb(func(what string) {
		w.progress(what)
		watcher.progress(w.ctx, what)
	})
	w.stop()
	sum.check(t, number(t, clis[0], "sum"))
}

// observer follows an election, and begins anew when it is cut off.
type observer struct {
	t    testing.TB
	cli  *clientv3.Client
	seen atomic.Int64
}

func (o *observer) start(w *workers) {
	w.wg.Go(func() {
		var leader, proposal int64 // revisions
		for w.ctx.Err() == nil {
			s, err := session(w.ctx, o.cli, nil)
			if err != nil {
				continue
			}
			for resp := range concurrency.NewElection(s, "/election").Observe(w.ctx) {
				kv := resp.Kvs[0]
				if kv.CreateRevision < leader || kv.CreateRevision == leader && kv.ModRevision < proposal {
					o.t.Errorf("observed %d of %d after %d of %d", kv.ModRevision, kv.CreateRevision, proposal, leader)
				}
				leader, proposal = kv.CreateRevision, kv.ModRevision
				o.seen.Add(1)
			}
		}
	})
}

func (o *observer) progress(ctx context.Context, what string) {
	o.t.Helper()
	from := o.seen.Load()
	if err := again(ctx, func(context.Context) error {
		if o.seen.Load() <= from {
			return errors.New("the observer has seen nothing new")
		}
		return nil
	}); err != nil {
		o.t.Fatalf("after %s: %v", what, err)
	}
}

// TestSTMFaults moves amounts between accounts at each level of isolation that
// promises the sum, and adds at the one that only keeps writes.
func TestSTMFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	levels := map[string]concurrency.Isolation{
		"snapshot": concurrency.SerializableSnapshot, "serializable": concurrency.Serializable,
		"repeatable": concurrency.RepeatableReads, "committed": concurrency.ReadCommitted,
	}
	cli := c.client()
	names := []string{"snapshot", "serializable", "repeatable", "committed"}
	for _, level := range names {
		for i := range 4 {
			if _, err := cli.Put(within(t), fmt.Sprintf("%s/%d", level, i), "100"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var written tally
	w := startWorkers(t, 2*len(names), func(ctx context.Context, i int) error {
		level := names[i%len(names)]
		one, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		_, err := concurrency.NewSTM(cli, func(s concurrency.STM) error {
			if level == "committed" {
				s.Put(fmt.Sprintf("%s/w%d", level, i), s.Get(level+"/0"))
				return nil
			}
			from, to := fmt.Sprintf("%s/%d", level, i%3), fmt.Sprintf("%s/%d", level, 3)
			a, _ := strconv.Atoi(s.Get(from))
			b, _ := strconv.Atoi(s.Get(to))
			s.Put(from, strconv.Itoa(a-1))
			s.Put(to, strconv.Itoa(b+1))
			return nil
		}, concurrency.WithAbortContext(one), concurrency.WithIsolation(levels[level]))
		if level == "committed" {
			written.count(err)
		}
		return err
	})
	c.disturb(w.progress)
	w.stop()
	for _, level := range names[:3] {
		checkSum(t, cli, level)
	}
	got, err := cli.Get(within(t), "committed/w", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	versions := int64(0)
	for _, kv := range got.Kvs {
		if string(kv.Value) != "100" {
			t.Errorf("%s is %s", kv.Key, kv.Value)
		}
		versions += kv.Version
	}
	written.check(t, versions)
}

// checkSum reads all accounts at one revision: what was cut off may still be on
// its way.
func checkSum(t *testing.T, cli *clientv3.Client, level string) {
	t.Helper()
	got, err := cli.Get(within(t), level+"/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, kv := range got.Kvs {
		n, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != 400 {
		t.Errorf("%s: the sum is %d", level, sum)
	}
}

// queue is what both kinds of queues do.
type queue interface {
	enqueue(value string, i int) error
	dequeue() (string, error)
}

type plainQueue struct{ *recipe.Queue }

func (q plainQueue) enqueue(value string, _ int) error { return q.Enqueue(value) }
func (q plainQueue) dequeue() (string, error)          { return q.Dequeue() }

type priorityQueue struct{ *recipe.PriorityQueue }

func (q priorityQueue) enqueue(value string, i int) error { return q.Enqueue(value, uint16(i)) }
func (q priorityQueue) dequeue() (string, error)          { return q.Dequeue() }

// TestQueueFaults: what was put into a queue comes out once.
func TestQueueFaults(t *testing.T) {
	for name, open := range map[string]func(*clientv3.Client) queue{
		"queue":    func(cli *clientv3.Client) queue { return plainQueue{recipe.NewQueue(cli, "/queue")} },
		"priority": func(cli *clientv3.Client) queue { return priorityQueue{recipe.NewPriorityQueue(cli, "/queue")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testQueue(t, open)
		})
	}
}

func testQueue(t *testing.T, open func(*clientv3.Client) queue) {
	c := startCluster(t, *server, 3)
	const producers, consumers = 2, 2
	var (
		mu       sync.Mutex
		put      = map[string]bool{} // value -> surely
		taken    = map[string]int{}
		lost     atomic.Int64 // takings without an answer
		stopping atomic.Bool
		next     atomic.Int64
	)
	var queues []queue
	for range producers + consumers {
		queues = append(queues, open(c.client()))
	}
	w := startWorkers(t, producers+consumers, func(_ context.Context, i int) error {
		if i < producers || stopping.Load() { // a last element for each consumer that waits
			value := strconv.FormatInt(next.Add(1), 10)
			err := queues[i].enqueue(value, i)
			mu.Lock()
			put[value] = err == nil
			mu.Unlock()
			return err
		}
		value, err := queues[i].dequeue()
		if err != nil {
			lost.Add(1)
			return err
		}
		mu.Lock()
		taken[value]++
		mu.Unlock()
		return nil
	})
	c.disturb(w.progress)
	stopping.Store(true)
	w.progress("the consumers were told to stop")
	w.stop()

	rest, last := open(c.client()), "last"
	if err := rest.enqueue(last, 9); err != nil {
		t.Fatal(err)
	}
	for value := ""; value != last; { // which is behind all others
		var err error
		if value, err = rest.dequeue(); err != nil {
			t.Fatal(err)
		}
		taken[value]++
	}
	missing := int64(0)
	for value, sure := range put {
		if taken[value] == 0 && sure {
			missing++
		}
	}
	if missing > lost.Load() {
		t.Errorf("%d elements are lost, and %d takings had no answer", missing, lost.Load())
	}
	for value, n := range taken {
		if _, ok := put[value]; n != 1 || !ok && value != last {
			t.Errorf("%s was taken %d times; it was put in: %v", value, n, ok)
		}
	}
	if len(taken) < 20 {
		t.Errorf("only %d elements went through", len(taken))
	}
}
