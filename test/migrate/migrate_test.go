package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// bump is by how much each page raises the revision.
const bump = 1_000_000_000

func TestFromEtcdBySnapshot(t *testing.T) { follow(t, "from-etcd-by-snapshot.md", "ETCD", "SHIM") }
func TestFromEtcdBySwap(t *testing.T)     { follow(t, "from-etcd-by-swap.md", "ETCD", "SHIM") }
func TestBackToEtcd(t *testing.T)         { follow(t, "back-to-etcd.md", "SHIM", "ETCD") }

// follow does what a page says, once for each of the clusters that it speaks
// of: what was there before has to be there afterwards, in the other program.
func follow(t *testing.T, page, from, to string) {
	blocks, names, err := readPage(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1, 3} {
		members := map[int]string{1: "one", 3: "three"}[count]
		var ways []string // alternatives
		for _, b := range blocks {
			if b.members == members && count == 1 && !slices.Contains(ways, b.where) {
				ways = append(ways, b.where)
			}
		}
		if count == 3 {
			ways = []string{""}
		}
		for _, way := range ways {
			t.Run(members+way, func(t *testing.T) {
				hosts := newHosts(t, count, from)
				for _, n := range names {
					if hosts[0].env[n] == "" {
						t.Errorf("the page sets %s, which has no value here", n)
					}
				}
				before := fill(t, hosts)
				ran := 0
				for _, b := range blocks {
					if b.members == members && (count == 3 || b.where == way) {
						b.run(t, hosts)
						ran++
					}
				}
				if ran == 0 {
					t.Fatalf("%s says nothing about %s", page, members)
				}
				check(t, hosts, before, to)
			})
		}
	}
}

// run runs the commands where they belong.
func (b block) run(t *testing.T, hosts []*host) {
	t.Helper()
	t.Logf("line %d, %s %s", b.line, b.members, b.where)
	switch {
	case b.members == "one" || b.where == "first":
		hosts[0].run(b.script)
	case b.where == "each":
		for _, h := range hosts {
			h.run(b.script)
		}
	case b.where == "furthest":
		slices.MaxFunc(hosts, func(x, y *host) int { return int(x.revision() - y.revision()) }).run(b.script)
	default:
		t.Fatalf("line %d: on which host is %q?", b.line, b.where)
	}
}

// revision is that of the database of a host whose member was stopped.
func (h *host) revision() int64 {
	h.t.Helper()
	var status struct{ Revision int64 }
	out := h.run("$SHIM snapshot status $DATA/member/snap/db -w json")
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return status.Revision
}

func dial(t *testing.T, hosts []*host) *clientv3.Client {
	t.Helper()
	var endpoints []string
	for _, h := range hosts {
		endpoints = append(endpoints, h.env["ENDPOINT"])
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

// fill writes objects, some of them again, some with a lease, and answers all
// that is there.
func fill(t *testing.T, hosts []*host) *clientv3.GetResponse {
	t.Helper()
	cli := dial(t, hosts)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, h := range hosts { // they were started without waiting
		one := dial(t, []*host{h})
		for _, err := one.Get(ctx, "x"); err != nil; _, err = one.Get(ctx, "x") {
			if ctx.Err() != nil {
				t.Fatalf("%s: %v\n%s", h.name, err, h.log())
			}
		}
	}
	lease, err := cli.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		key, value := fmt.Sprintf("/registry/pods/ns/pod-%04d", i%300), fmt.Sprintf("value %d", i)
		var opts []clientv3.OpOption
		if i%10 == 0 {
			opts = append(opts, clientv3.WithLease(lease.ID))
		}
		if _, err := cli.Put(ctx, key, value, opts...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cli.Delete(ctx, "/registry/pods/ns/pod-0299"); err != nil {
		t.Fatal(err)
	}
	all, err := cli.Get(ctx, "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// check looks for all that was there, on each member, with its revisions and
// leases, in the program that the page ends with, and that it can be written to.
func check(t *testing.T, hosts []*host, before *clientv3.GetResponse, program string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, h := range hosts {
		cli := dial(t, []*host{h})
		after, err := cli.Get(ctx, "/", clientv3.WithPrefix())
		if err != nil {
			t.Fatalf("%s: %v\n%s", h.name, err, h.log())
		}
		if len(after.Kvs) != len(before.Kvs) {
			t.Fatalf("%s: %d keys, were %d", h.name, len(after.Kvs), len(before.Kvs))
		}
		for i, kv := range after.Kvs {
			was := before.Kvs[i]
			if !bytes.Equal(kv.Key, was.Key) || !bytes.Equal(kv.Value, was.Value) || kv.Lease != was.Lease ||
				kv.ModRevision != was.ModRevision || kv.CreateRevision != was.CreateRevision || kv.Version != was.Version {
				t.Errorf("%s: %v, was %v", h.name, kv, was)
			}
		}
		if after.Header.Revision < before.Header.Revision+bump {
			t.Errorf("%s: revision %d, was %d", h.name, after.Header.Revision, before.Header.Revision)
		}
		if l, err := cli.MemberList(ctx); err != nil || len(l.Members) != len(hosts) {
			t.Errorf("%s: members %v, %v", h.name, l, err)
		}
		if _, err := cli.Put(ctx, "/after/"+h.name, "x"); err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
		if _, err := cli.Delete(ctx, "/after/"+h.name); err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
		if runs, want := h.run(`cat /proc/$(cat $PIDFILE)/comm`), strings.ToLower(program)+"\n"; runs != want {
			t.Errorf("%s runs %s, not %s", h.name, runs, want)
		}
	}
}
