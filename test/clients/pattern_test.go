package clients

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// pattern is one conversation with one server, and what was said in it.
type pattern struct {
	t    testing.TB
	ctx  context.Context
	c    *cluster
	cli  *clientv3.Client
	said strings.Builder
}

// onBoth has a conversation with etcd and one with shim, which have to tell the same.
func onBoth(t *testing.T, talk func(*pattern)) {
	t.Parallel()
	said := map[string]string{}
	for _, name := range []string{"etcd", "shim"} {
		c := startCluster(t, name, 1)
		p := &pattern{t: t, ctx: within(t), c: c, cli: c.client()}
		talk(p)
		said[name] = p.said.String()
	}
	if strings.Count(said["etcd"], "\n") < 3 {
		t.Fatalf("etcd said only:\n%s", said["etcd"])
	}
	if said["etcd"] == said["shim"] {
		return
	}
	etcd, shim := strings.Split(said["etcd"], "\n"), strings.Split(said["shim"], "\n")
	for i := range max(len(etcd), len(shim)) {
		a, b := line(etcd, i), line(shim, i)
		if a != b {
			t.Errorf("line %d\netcd: %s\nshim: %s", i+1, a, b)
		}
	}
}

func line(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "(nothing)"
}

// What two servers differ in: addresses, and leases in keys.
var (
	address    = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	sessionKey = regexp.MustCompile(`/[0-9a-f]{8,16}\b`)
)

func (p *pattern) say(format string, args ...any) {
	said := sessionKey.ReplaceAllString(fmt.Sprintf(format, args...), "/LEASE")
	p.said.WriteString(address.ReplaceAllString(said, "ADDR") + "\n")
}

// fatal ends the test, if a step that has to work did not.
func (p *pattern) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func kvText(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	lease := ""
	if kv.Lease != 0 {
		lease = " leased"
	}
	return fmt.Sprintf("%s=%q c%d m%d v%d%s", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, lease)
}

func kvsText(kvs []*mvccpb.KeyValue) string {
	var all []string
	for _, kv := range kvs {
		all = append(all, kvText(kv))
	}
	return "[" + strings.Join(all, "; ") + "]"
}

// get asks and says what came.
func (p *pattern) get(key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	p.t.Helper()
	r, err := p.cli.Get(p.ctx, key, opts...)
	if err != nil {
		p.say("get %s: %v", key, err)
		return nil
	}
	p.say("get %s: revision %d count %d more %v %s", key, r.Header.Revision, r.Count, r.More, kvsText(r.Kvs))
	return r
}

func (p *pattern) txn(what string, txn clientv3.Txn) *clientv3.TxnResponse {
	p.t.Helper()
	r, err := txn.Commit()
	if err != nil {
		p.say("%s: %v", what, err)
		return nil
	}
	p.say("%s: revision %d succeeded %v", what, r.Header.Revision, r.Succeeded)
	for _, op := range r.Responses {
		switch {
		case op.GetResponseRange() != nil:
			p.say("  range count %d %s", op.GetResponseRange().Count, kvsText(op.GetResponseRange().Kvs))
		case op.GetResponsePut() != nil:
			p.say("  put, before %s", kvText(op.GetResponsePut().PrevKv))
		case op.GetResponseDeleteRange() != nil:
			p.say("  deleted %d %s", op.GetResponseDeleteRange().Deleted, kvsText(op.GetResponseDeleteRange().PrevKvs))
		}
	}
	return r
}

func (p *pattern) put(key, value string, opts ...clientv3.OpOption) {
	p.t.Helper()
	r, err := p.cli.Put(p.ctx, key, value, opts...)
	if err != nil {
		p.say("put %s: %v", key, err)
		return
	}
	p.say("put %s: revision %d", key, r.Header.Revision)
}

func (p *pattern) grant(seconds int64) clientv3.LeaseID {
	p.t.Helper()
	r, err := p.cli.Grant(p.ctx, seconds)
	p.must(err)
	p.say("granted %d s", r.TTL)
	return r.ID
}

// watching says n events of a watch, or why it ended.
func (p *pattern) watching(w clientv3.WatchChan, n int) {
	p.t.Helper()
	for n > 0 {
		r, ok := <-w
		if !ok {
			p.say("watch closed")
			return
		}
		if r.Created {
			p.say("watch created")
			n--
			continue
		}
		if err := r.Err(); err != nil {
			p.say("watch: %v, compacted at %d", err, r.CompactRevision)
			n--
			continue
		}
		if r.IsProgressNotify() {
			continue
		}
		for _, e := range r.Events {
			p.say("event %s %s, before %s", e.Type, kvText(e.Kv), kvText(e.PrevKv))
			n--
		}
	}
}

func (p *pattern) fails(what string, err, want error) {
	p.say("%s: %v, as wanted %v", what, err, errors.Is(err, want))
}
