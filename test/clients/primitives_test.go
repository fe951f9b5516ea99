package clients

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// TestRWMutexFaults: a writer is alone, readers are not with a writer. The numbers
// are those of the workers, which know when they were cut off: one that lost its
// session does not count as a holder any more, so each holder checks its key.
func TestRWMutexFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	const n = 4 // the first two write
	clis := make([]*clientv3.Client, n)
	for i := range clis {
		clis[i] = c.client()
	}
	var sum tally
	w := startWorkers(t, n, func(ctx context.Context, i int) error {
		s, err := session(ctx, clis[i], nil)
		if err != nil {
			return err
		}
		defer s.Orphan() // and if it is cut off, the lease ends what is held
		m := recipe.NewRWMutex(s, "/rw")
		if i >= 2 {
			if err := m.RLock(); err != nil {
				return err
			}
			defer m.RUnlock()
			one, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			a, err := clis[i].Get(one, "sum")
			if err != nil {
				return err
			}
			b, err := clis[i].Get(one, "sum")
			if err != nil {
				return err
			}
			left, err := clis[i].TimeToLive(one, s.Lease())
			if err == nil && left.TTL > 0 && len(a.Kvs) > 0 && a.Kvs[0].ModRevision != b.Kvs[0].ModRevision {
				t.Errorf("a reader saw revisions %d and %d", a.Kvs[0].ModRevision, b.Kvs[0].ModRevision)
			}
			return err
		}
		if err := m.Lock(); err != nil {
			return err
		}
		defer m.Unlock()
		one, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		held, err := clis[i].Get(one, "/rw/write", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range held.Kvs {
			if clientv3.LeaseID(kv.Lease) == s.Lease() {
				return addOne(one, clis[i], "sum", clientv3.Compare(clientv3.CreateRevision(string(kv.Key)), "=", kv.CreateRevision), &sum)
			}
		}
		return errors.New("the lock was lost")
	})
	c.disturb(w.progress)
	w.stop()
	sum.check(t, number(t, clis[0], "sum"))
}

// TestBarrierFaults: nobody passes before the barrier is released, and all do
// then, though the leader was killed and all members restarted meanwhile.
func TestBarrierFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	ctx := within(t)
	if err := recipe.NewBarrier(c.client(), "/barrier").Hold(); err != nil {
		t.Fatal(err)
	}
	const n = 3
	var released atomic.Bool
	passed := make(chan error, n)
	for range n {
		cli := c.client()
		go func() {
			err := again(ctx, func(context.Context) error { return recipe.NewBarrier(cli, "/barrier").Wait() })
			if err == nil && !released.Load() {
				err = errors.New("passed before the release")
			}
			passed <- err
		}()
	}
	c.disturb(func(string) {})
	released.Store(true)
	cli := c.client()
	if err := again(ctx, func(context.Context) error { return recipe.NewBarrier(cli, "/barrier").Release() }); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-passed; err != nil {
			t.Error(err)
		}
	}
}

// TestDoubleBarrierFaults: all enter when the last has come, and leave together.
// One that goes away without leaving is missed when its lease expires.
func TestDoubleBarrierFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	ctx := within(t)
	const n = 3
	sessions, barriers := make([]*concurrency.Session, n), make([]*recipe.DoubleBarrier, n)
	for i := range n {
		var err error
		if sessions[i], err = concurrency.NewSession(c.client(), concurrency.WithTTL(30)); err != nil {
			t.Fatal(err)
		}
		barriers[i] = recipe.NewDoubleBarrier(sessions[i], "/double", n)
	}
	entered, left := make(chan error, n), make(chan error, n)
	var last atomic.Bool
	for i := range n - 1 {
		go func() {
			err := barriers[i].Enter()
			if err == nil && !last.Load() {
				err = errors.New("entered before the last")
			}
			entered <- err
		}()
	}
	cli := c.client()
	if err := again(ctx, func(ctx context.Context) error { // until they wait
		r, err := cli.Get(ctx, "/double/waiters", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && r.Count < n-1 {
			err = errors.New("not all are waiting")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c.restart(c.leader(), syscall.SIGKILL)
	last.Store(true)
	go func() { entered <- barriers[n-1].Enter() }()
	for range n {
		if err := <-entered; err != nil {
			t.Fatal(err)
		}
	}
	if err := recipe.NewDoubleBarrier(sessions[0], "/double", n).Enter(); !errors.Is(err, recipe.ErrTooManyClients) {
		t.Errorf("one too many: %v", err)
	}
	c.moveLeader()
	var gone atomic.Bool
	for i := range n - 1 {
		go func() {
			err := barriers[i].Leave()
			if err == nil && !gone.Load() {
				err = errors.New("left before the last")
			}
			left <- err
		}()
	}
	gone.Store(true)
	if _, err := sessions[n-1].Client().Revoke(ctx, sessions[n-1].Lease()); err != nil {
		t.Fatal(err)
	}
	for range n - 1 {
		if err := <-left; err != nil {
			t.Error(err)
		}
	}
}

// TestLockServiceFaults is TestMutexFaults with the Lock service, whose calls wait
// in the server.
func TestLockServiceFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t, *server, 3)
	const n = 4
	clis := make([]*clientv3.Client, n)
	for i := range clis {
		clis[i] = c.client()
	}
	var sum tally
	rare := eighth()
	w := startWorkers(t, n, func(ctx context.Context, i int) error {
		s, err := session(ctx, clis[i], nil)
		if err != nil {
			return err
		}
		defer s.Orphan()
		one, cancel := context.WithTimeout(ctx, 4*callLimit)
		defer cancel()
		locks := v3lockpb.NewLockClient(clis[i].ActiveConnection())
		held, err := locks.Lock(one, &v3lockpb.LockRequest{Name: []byte("/lock"), Lease: int64(s.Lease())})
		if err != nil {
			return err
		}
		// That it is there is who holds the lock: nobody else has the lease.
		guard := clientv3.Compare(clientv3.LeaseValue(string(held.Key)), "=", s.Lease())
		if err := addOne(one, clis[i], "sum", guard, &sum); err != nil || i == 0 && rare() {
			return err
		}
		_, err = locks.Unlock(one, &v3lockpb.UnlockRequest{Key: held.Key})
		return err
	})
	c.disturb(w.progress)
	w.stop()
	sum.check(t, number(t, clis[0], "sum"))
}
