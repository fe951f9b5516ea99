package etcdapi

import (
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// The recipes of clientv3/concurrency use what apiservers do not: sessions with
// keep-alives, sorted and filtered ranges, compares of create revisions, and
// txns over several keys.

func TestMutex(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	const clients, rounds = 3, 5
	holders, sum := 0, 0 // guarded by the mutex under test; the race detector watches
	var wg sync.WaitGroup
	for range clients {
		session := mustOf[*concurrency.Session](t)(concurrency.NewSession(ts.client(t), concurrency.WithTTL(60)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			m := concurrency.NewMutex(session, "/lock/")
			for range rounds {
				if err := m.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				holders++
				if holders != 1 {
					t.Errorf("%d hold the lock", holders)
				}
				sum++
				holders--
				if err := m.Unlock(ctx); err != nil {
					t.Error(err)
					return
				}
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if sum != clients*rounds {
		t.Errorf("%d rounds", sum)
	}
	left := mustOf[*clientv3.LeaseLeasesResponse](t)(ts.cli.Leases(ctx))
	if len(left.Leases) != 0 {
		t.Errorf("leases left: %v", left.Leases)
	}
}

func TestElection(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	first := mustOf[*concurrency.Session](t)(concurrency.NewSession(ts.cli))
	second := mustOf[*concurrency.Session](t)(concurrency.NewSession(ts.client(t)))
	defer second.Close()
	e1, e2 := concurrency.NewElection(first, "/elect"), concurrency.NewElection(second, "/elect")
	if err := e1.Campaign(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	won := make(chan error, 1)
	go func() { won <- e2.Campaign(ctx, "two") }()
	if leader := mustOf[*clientv3.GetResponse](t)(e2.Leader(ctx)); string(leader.Kvs[0].Value) != "one" {
		t.Errorf("leader: %v", leader.Kvs)
	}
	if err := e1.Proclaim(ctx, "still one"); err != nil {
		t.Error(err)
	}
	// The end of the first one's session deletes its key, and so elects the second.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	if leader := mustOf[*clientv3.GetResponse](t)(e2.Leader(ctx)); string(leader.Kvs[0].Value) != "two" {
		t.Errorf("leader: %v", leader.Kvs)
	}
	if err := e2.Resign(ctx); err != nil {
		t.Error(err)
	}
}

// TestTransfers moves amounts between accounts in software transactions: the sum stays.
func TestTransfers(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	for _, k := range []string{"a", "b", "c"} {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, k, "100"))
	}
	var wg sync.WaitGroup
	for i, pair := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "a"}} {
		cli := ts.client(t)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				_, err := concurrency.NewSTM(cli, func(s concurrency.STM) error {
					from, _ := strconv.Atoi(s.Get(pair[0]))
					to, _ := strconv.Atoi(s.Get(pair[1]))
					s.Put(pair[0], strconv.Itoa(from-i-1))
					s.Put(pair[1], strconv.Itoa(to+i+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	sum := 0
	for _, kv := range mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, "a", clientv3.WithRange("d"))).Kvs {
		n, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != 300 {
		t.Errorf("sum %d", sum)
	}
}
