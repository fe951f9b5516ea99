package main

import (
	"context"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProcessServesK3s makes the calls of k3s with --datastore-endpoint beside
// those of its API server: its certificates and tokens are a value below
// /bootstrap, which servers create, read, update, and delete for one under a new
// token, each guarded by the revision that they have seen (kine's client, which
// k3s uses towards etcd, too).
func TestProcessServesK3s(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"), "--profile=edge")
	cli := p.dial()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	const old, fresh = "/bootstrap/0badc0de", "/bootstrap/0ddba11"

	list, err := cli.Get(ctx, "/bootstrap", clientv3.WithPrefix(), clientv3.WithRev(0))
	if err != nil || len(list.Kvs) != 0 {
		t.Fatalf("an empty store lists %v, %v", list, err)
	}
	guarded := func(key string, revision int64, op clientv3.Op, orElse ...clientv3.Op) *clientv3.TxnResponse {
		t.Helper()
		r, err := cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).Then(op).Else(orElse...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	created := guarded(old, 0, clientv3.OpPut(old, ""))
	if again := guarded(old, 0, clientv3.OpPut(old, "another server's")); !created.Succeeded || again.Succeeded {
		t.Fatalf("two servers created it: %v, %v", created, again)
	}
	updated := guarded(old, created.Header.Revision, clientv3.OpPut(old, "certificates"), clientv3.OpGet(old))
	late := guarded(old, created.Header.Revision, clientv3.OpPut(old, "late"), clientv3.OpGet(old))
	if !updated.Succeeded || late.Succeeded || string(late.Responses[0].GetResponseRange().Kvs[0].Value) != "certificates" {
		t.Fatalf("updates: %v, %v", updated, late)
	}
	if r := guarded(fresh, 0, clientv3.OpPut(fresh, "certificates")); !r.Succeeded {
		t.Fatal("the value under the new token was not created")
	}
	if r := guarded(old, updated.Header.Revision, clientv3.OpDelete(old), clientv3.OpGet(old)); !r.Succeeded {
		t.Fatal("the value under the old token was not deleted")
	}
	list, err = cli.Get(ctx, "/bootstrap", clientv3.WithPrefix())
	if err != nil || len(list.Kvs) != 1 || string(list.Kvs[0].Key) != fresh {
		t.Fatalf("listed %v, %v", list, err)
	}
	if r, err := cli.Compact(ctx, list.Header.Revision); err != nil || r.Header.Revision != list.Header.Revision {
		t.Fatalf("compacted: %v, %v", r, err)
	}
	// Its own look at whether the store answers.
	if _, err := cli.Status(ctx, p.client); err != nil {
		t.Error(err)
	}
}
