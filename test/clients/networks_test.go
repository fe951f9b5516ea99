package clients

import (
	"context"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// TestCalico: libcalico-go's etcdv3 backend.
func TestCalico(t *testing.T) {
	onBoth(t, func(p *pattern) {
		const key = "/calico/resources/v3/projectcalico.org/felixconfigurations/default"
		create := func() clientv3.Txn {
			return p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.Version(key), "=", 0)).
				Then(clientv3.OpPut(key, "one")).Else(clientv3.OpGet(key))
		}
		p.txn("create", create())
		p.txn("create again", create())
		rev := p.get(key).Kvs[0].ModRevision
		update := func(rev int64, value string) {
			p.txn("update", p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
				Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)))
		}
		update(rev, "two")
		update(rev, "lost")
		p.txn("apply, without a compare", p.cli.Txn(p.ctx).Then(clientv3.OpPut(key, "three", clientv3.WithPrevKV())))
		p.txn("empty compare and branches", p.cli.Txn(p.ctx))
		p.get(key, clientv3.WithRev(rev))
		p.get("/calico/", clientv3.WithPrefix(), clientv3.WithRev(rev))
		w := p.cli.Watch(p.ctx, "/calico/", clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		p.watching(w, 3)
		lease := p.grant(600)
		p.put("/calico/felix/v2/host/status", "alive", clientv3.WithLease(lease))
		p.txn("delete at a revision", p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
			Then(clientv3.OpDelete(key, clientv3.WithPrevKV())).Else(clientv3.OpGet(key)))
		p.txn("delete", p.cli.Txn(p.ctx).Then(clientv3.OpDelete(key, clientv3.WithPrevKV())))
		p.txn("delete what is gone", p.cli.Txn(p.ctx).Then(clientv3.OpDelete(key, clientv3.WithPrevKV())))
		p.watching(w, 2)
		_, err := p.cli.Revoke(p.ctx, lease)
		p.must(err)
		p.watching(w, 1)
		_, err = p.cli.Compact(p.ctx, rev+2)
		p.must(err)
		p.get(key, clientv3.WithRev(rev))
		p.watching(p.cli.Watch(p.ctx, "/calico/", clientv3.WithPrefix(), clientv3.WithRev(rev)), 1)
	})
}

// TestCilium: pkg/kvstore's etcd backend, and clustermesh.
func TestCilium(t *testing.T) {
	onBoth(t, func(p *pattern) {
		st, err := p.cli.Status(p.ctx, p.c.members[0].Client)
		p.must(err)
		p.say("status %s leads %v db %v errors %v", st.Version, st.Leader == st.Header.MemberId, st.DbSize > 0, st.Errors)
		session, err := concurrency.NewSession(p.cli, concurrency.WithTTL(900))
		p.must(err)
		locks, err := concurrency.NewSession(p.cli, concurrency.WithTTL(90))
		p.must(err)
		p.get("cilium/", clientv3.WithPrefix(), clientv3.WithSerializable())

		m := concurrency.NewMutex(locks, "cilium/state/identities/v1/locks/a")
		p.must(m.Lock(p.ctx))
		lockKey := clientv3.Compare(clientv3.CreateRevision(m.Key()), "=", m.Header().Revision)
		id := "cilium/state/identities/v1/id/1001"
		absent := func() clientv3.Txn {
			return p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.Version(id), "=", 0), lockKey).
				Then(clientv3.OpPut(id, "labels", clientv3.WithLease(session.Lease()))).Else(clientv3.OpTxn([]clientv3.Cmp{lockKey}, nil, nil))
		}
		p.txn("create under the lock", absent())
		p.txn("create again", absent())
		p.txn("get under the lock", p.cli.Txn(p.ctx).If(lockKey).Then(clientv3.OpGet(id)))
		p.txn("create if the master key is there", p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.Version(id), "!=", 0)).
			Then(clientv3.OpPut("cilium/state/identities/v1/value/a/10.0.0.1", "1001", clientv3.WithLease(session.Lease()))))
		w := p.cli.Watch(clientv3.WithRequireLeader(p.ctx), "cilium/", clientv3.WithPrefix(), clientv3.WithRev(p.get("cilium/state/", clientv3.WithPrefix(), clientv3.WithSerializable()).Header.Revision+1))
		p.txn("delete under the lock", p.cli.Txn(p.ctx).If(lockKey).Then(clientv3.OpDelete("cilium/state/identities/v1/value/a/", clientv3.WithPrefix())))
		p.watching(w, 1)
		p.must(m.Unlock(p.ctx))
		if e := <-w; len(e.Events) != 1 || e.Events[0].IsCreate() {
			p.t.Errorf("the end of the lock: %+v", e.Events)
		}
		p.txn("get under a lock that is lost", p.cli.Txn(p.ctx).If(lockKey).Then(clientv3.OpGet(id)))

		_, err = p.cli.Put(p.ctx, id, "x", clientv3.WithLease(12345))
		p.fails("put with a lease that is gone", err, rpctypes.ErrLeaseNotFound)
		_, err = p.cli.KeepAliveOnce(p.ctx, 12345)
		p.fails("keep alive a lease that is gone", err, rpctypes.ErrLeaseNotFound)
		p.must(session.Close())
		p.watching(w, 1)
		p.get("cilium/", clientv3.WithPrefix(), clientv3.WithSerializable(), clientv3.WithLimit(1), clientv3.WithCountOnly())
		for i := range 5 {
			p.put(fmt.Sprintf("cilium/state/nodes/v1/%d", i), "node")
		}
		p.get("cilium/state/nodes/", clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	})
}

// TestFlannel: pkg/subnet/etcd's registry.
func TestFlannel(t *testing.T) {
	onBoth(t, func(p *pattern) {
		const prefix = "/coreos.com/network"
		p.put(prefix+"/config", `{"Network":"10.5.0.0/16"}`)
		p.get(prefix + "/config")
		subnet := prefix + "/subnets/10.5.34.0-24"
		lease := p.grant(86400)
		create := func() clientv3.Txn {
			return p.cli.Txn(p.ctx).If(clientv3.Compare(clientv3.Version(subnet), "=", 0)).
				Then(clientv3.OpPut(subnet, "attrs", clientv3.WithLease(lease)))
		}
		p.txn("create", create())
		p.txn("create again", create())
		p.put(prefix+"/subnets/10.5.35.0-24", "without a lease")
		list := p.get(prefix+"/subnets", clientv3.WithPrefix())
		for _, kv := range list.Kvs {
			ttl, err := p.cli.TimeToLive(p.ctx, clientv3.LeaseID(kv.Lease))
			p.must(err)
			p.say("%s: granted %d, left %v, none %v", kv.Key, ttl.GrantedTTL, ttl.TTL > 86300, ttl.TTL == -1)
		}
		w := p.cli.Watch(clientv3.WithRequireLeader(p.ctx), prefix+"/subnets", clientv3.WithPrefix(), clientv3.WithRev(list.Header.Revision))
		p.watching(w, 1)
		next := p.grant(86400)
		p.put(subnet, "attrs", clientv3.WithLease(next))
		_, err := p.cli.Revoke(p.ctx, lease)
		p.must(err)
		p.get(subnet)
		_, err = p.cli.Revoke(p.ctx, lease)
		p.fails("revoke again", err, rpctypes.ErrLeaseNotFound)
		_, err = p.cli.Revoke(p.ctx, next)
		p.must(err)
		p.watching(w, 2)
		now := p.get(prefix+"/subnets", clientv3.WithPrefix())
		_, err = p.cli.Compact(p.ctx, now.Header.Revision)
		p.must(err)
		p.watching(p.cli.Watch(clientv3.WithRequireLeader(p.ctx), prefix+"/subnets", clientv3.WithPrefix(), clientv3.WithRev(2)), 1)
		r, err := p.cli.Delete(p.ctx, prefix+"/subnets/10.5.35.0-24")
		p.must(err)
		p.say("deleted %d", r.Deleted)
	})
}

// TestCoreDNS: the etcd plugin.
func TestCoreDNS(t *testing.T) {
	onBoth(t, func(p *pattern) {
		lease := p.grant(6000)
		p.put("/skydns/local/skydns/x/a", `{"host":"1.1.1.1"}`)
		p.put("/skydns/local/skydns/x/b", `{"host":"1.1.1.2"}`, clientv3.WithLease(lease))
		p.put("/skydns/local/skydns/xy", `{"host":"1.1.1.3"}`)
		// The plugin asks for the prefix with a slash, and for the key itself when
		// that has nothing.
		for _, name := range []string{"/skydns/local/skydns/x", "/skydns/local/skydns/xy", "/skydns/local/none"} {
			if r := p.get(name+"/", clientv3.WithPrefix()); r.Count == 0 {
				p.get(name)
			}
		}
		for _, kv := range p.get("/skydns/local/skydns/", clientv3.WithPrefix()).Kvs {
			if kv.Lease == 0 {
				continue
			}
			ttl, err := p.cli.TimeToLive(p.ctx, clientv3.LeaseID(kv.Lease))
			p.must(err)
			p.say("%s: TTL within %v", kv.Key, ttl.TTL > 5000 && ttl.TTL <= 6000)
		}
	})
}

// TestVault: physical/etcd's etcd3 backend.
func TestVault(t *testing.T) {
	onBoth(t, func(p *pattern) {
		p.must(p.cli.Sync(p.ctx))
		p.say("endpoints after sync %v", p.cli.Endpoints())
		for i, name := range []string{"core/keyring", "core/seal-config", "logical/a/b", "sys/token"} {
			p.put("/vault/"+name, fmt.Sprint(i))
		}
		p.get("/vault/core/keyring")
		p.get("/vault/none")
		p.get("/vault/core/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		p.get("/vault/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		for range 2 {
			r, err := p.cli.Delete(p.ctx, "/vault/sys/token")
			p.must(err)
			p.say("deleted %d at %d", r.Deleted, r.Header.Revision)
		}
		first, err := concurrency.NewSession(p.cli, concurrency.WithTTL(60))
		p.must(err)
		second, err := concurrency.NewSession(p.c.client(), concurrency.WithTTL(60))
		p.must(err)
		leader := concurrency.NewMutex(first, "/vault/core/lock")
		p.must(leader.Lock(p.ctx))
		p.put(leader.Key(), "active", clientv3.WithLease(first.Lease()))
		standby := concurrency.NewMutex(second, "/vault/core/lock")
		fast, cancel := context.WithCancel(p.ctx)
		cancel()
		p.fails("lock, given up at once", standby.Lock(fast), context.Canceled)
		p.fails("try the lock", standby.TryLock(p.ctx), concurrency.ErrLocked)
		held := make(chan error, 1)
		go func() { held <- standby.Lock(p.ctx) }()
		r, err := p.cli.Get(p.ctx, "/vault/core/lock/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend), clientv3.WithLimit(1))
		p.must(err)
		p.say("the holder is the leader %v, says %q", string(r.Kvs[0].Key) == leader.Key(), r.Kvs[0].Value)
		p.must(first.Close()) // Vault's process has gone
		p.must(<-held)
		p.must(standby.Unlock(p.ctx))
		p.say("unlocked at %v", p.get("/vault/core/lock/", clientv3.WithPrefix()).Count)
		p.must(second.Close())
	})
}
