package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

// bump is what both tools raise the revision by here; it is shim's default.
const bump = 1_000_000_000

// holder is a server that holds something.
type holder struct {
	*script.Server
	*clientv3.Client
}

func hold(t *testing.T, binary, dataDir string) *holder {
	t.Helper()
	s, err := script.Start(binary, dataDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.ClientAddress()}, DialTimeout: time.Minute, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), s.Stop()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return &holder{s, c}
}

// fill makes keys with several versions, deletions, leases, transactions, and a compaction in the middle. The last change is a deletion.
// It answers the compacted revision.
func (h *holder) fill(t *testing.T) (compacted int64) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(key, value string, o ...clientv3.OpOption) int64 {
		r, err := h.Put(ctx, key, value, o...)
		must(err)
		return r.Header.Revision
	}
	remove := func(key string, o ...clientv3.OpOption) {
		_, err := h.Delete(ctx, key, o...)
		must(err)
	}
	var leases []clientv3.LeaseID
	for _, ttl := range []int64{3600, 7200, 100_000} {
		l, err := h.Grant(ctx, ttl)
		must(err)
		leases = append(leases, l.ID)
	}
	round := func(n int) {
		for i := range 25 {
			value := strings.Repeat(fmt.Sprintf("%d-%d\x00\xff", n, i), i*i)
			if i%5 == n%5 {
				put(fmt.Sprintf("/registry/pods/p%02d", i), value, clientv3.WithLease(leases[i%2]))
			} else {
				put(fmt.Sprintf("/registry/pods/p%02d", i), value)
			}
		}
		remove("/registry/pods/p03")
		put("/registry/pods/p03", "again")
		remove(fmt.Sprintf("/registry/pods/p1%d", n), clientv3.WithRange(fmt.Sprintf("/registry/pods/p1%d", n+2)))
		_, err := h.Txn(ctx).Then(clientv3.OpPut("a", fmt.Sprint(n)), clientv3.OpDelete("/registry/pods/p00"), clientv3.OpPut("b", "", clientv3.WithLease(leases[2]))).Commit()
		must(err)
	}
	round(0)
	round(1)
	compacted = put("a", "compacted here")
	round(2)
	l, err := h.Grant(ctx, 500)
	must(err)
	put("gone with its lease", "1", clientv3.WithLease(l.ID))
	_, err = h.Revoke(ctx, l.ID)
	must(err)
	_, err = h.Compact(ctx, compacted, clientv3.WithCompactPhysical())
	must(err)
	round(3)
	remove("/registry/pods/p20")
	return compacted
}

// now is what the server holds: revision, keys, and leases with what hangs on them.
func (h *holder) now(t *testing.T) (rev int64, text string) {
	t.Helper()
	var b strings.Builder
	rev = h.keysAt(t, &b, 0)
	leases, err := h.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(leases.Leases, func(a, b clientv3.LeaseStatus) int { return int(a.ID>>1 - b.ID>>1) })
	for _, l := range leases.Leases {
		ttl, err := h.TimeToLive(t.Context(), l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(ttl.Keys, slices.Compare)
		fmt.Fprintf(&b, "lease %x TTL %d keys %q\n", int64(l.ID), ttl.GrantedTTL, ttl.Keys)
	}
	return rev, b.String()
}

func (h *holder) keysAt(t *testing.T, b *strings.Builder, rev int64) int64 {
	t.Helper()
	r, err := h.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(rev))
	if err != nil {
		t.Fatalf("keys at %d: %v", rev, err)
	}
	fmt.Fprintf(b, "%d keys\n", r.Count)
	for _, kv := range r.Kvs {
		fmt.Fprintf(b, "%q create %d mod %d version %d lease %x %q\n", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, kv.Value)
	}
	return r.Header.Revision
}

// past is the history from the compacted revision on: the keys and the hash at each revision, and all events.
func (h *holder) past(t *testing.T, compacted int64) string {
	t.Helper()
	var b strings.Builder
	last := h.keysAt(t, &b, 0)
	for rev := compacted; rev <= last; rev++ {
		fmt.Fprintf(&b, "at %d: ", rev)
		h.keysAt(t, &b, rev)
		if rev == compacted { // etcd's own answer there depends on whether it has the compaction's hash, or was started since
			continue
		}
		hash, err := h.HashKV(t.Context(), h.Endpoints()[0], rev)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "hash %x compacted %d\n", hash.Hash, hash.CompactRevision)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	seen := int64(0)
	for w := range h.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithPrevKV(), clientv3.WithRev(compacted+1)) {
		if err := w.Err(); err != nil {
			t.Fatalf("watch: %v", err)
		}
		for _, e := range w.Events {
			fmt.Fprintf(&b, "%v %v before %v\n", e.Type, e.Kv, e.PrevKv)
			seen = e.Kv.ModRevision
		}
		if seen == last {
			return b.String()
		}
	}
	t.Fatalf("watched up to %d of %d", seen, last)
	return ""
}

// relists checks that a watch from a revision of before the restore ends, and that what a client lists then goes on from there.
func (h *holder) relists(t *testing.T, old int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, from := range []int64{old - 3, old + 1, old + 5000} { // the former cluster was ahead of the snapshot
		w := <-h.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(from))
		if !errors.Is(w.Err(), rpctypes.ErrCompacted) || w.CompactRevision != old+bump {
			t.Errorf("a watch from %d: %v, compacted %d, want %d", from, w.Err(), w.CompactRevision, old+bump)
		}
		if _, err := h.Get(ctx, "a", clientv3.WithRev(from)); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("a get at %d: %v", from, err)
		}
	}
	r, err := h.Get(ctx, "a")
	if err != nil || r.Header.Revision != old+bump {
		t.Fatalf("listed at %+v, %v, want %d", r, err, old+bump)
	}
	events := h.Watch(ctx, "a", clientv3.WithRev(r.Header.Revision+1))
	if _, err := h.Put(ctx, "a", "behind the restore"); err != nil {
		t.Fatal(err)
	}
	if w := <-events; len(w.Events) != 1 || w.Events[0].Kv.ModRevision != old+bump+1 || w.Events[0].Kv.Version != r.Kvs[0].Version+1 {
		t.Errorf("watched %+v, the key was %+v", w, r.Kvs[0])
	}
}

// tool runs one of the command line tools.
func tool(t *testing.T, binary string, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s %q: %v\n%s%s", filepath.Base(binary), args, err, out, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}

func same(t *testing.T, what, want, have string) {
	t.Helper()
	if have == want {
		return
	}
	a, b := strings.Split(want, "\n"), strings.Split(have, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Errorf("%s differs in line %d of %d and %d:\n%s\n%s", what, i+1, len(a), len(b), strings.Join(a[i:min(i+1, len(a))], ""), strings.Join(b[i:min(i+1, len(b))], ""))
			return
		}
	}
}

// sameStatus compares what both tools say of a file.
func sameStatus(t *testing.T, shim, file string) {
	t.Helper()
	for _, form := range []string{"simple", "table", "json", "fields"} {
		same(t, "status "+form, tool(t, peers.Path(t, "etcdutl"), "snapshot", "status", file, "-w", form),
			tool(t, shim, "snapshot", "status", file, "-w", form))
	}
}

// TestSnapshotFromEtcd: what etcd 3.5, 3.6 and 3.7 hold is what shim holds that was restored from it.
func TestSnapshotFromEtcd(t *testing.T) {
	shim := shimPath(t)
	for _, version := range []string{"etcd-3.5", "etcd-3.6", "etcd"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			from := hold(t, peers.Path(t, version), filepath.Join(dir, "from"))
			compacted := from.fill(t)
			file := filepath.Join(dir, "snapshot.db")
			tool(t, peers.Path(t, "etcdctl"), "--endpoints", from.ClientAddress(), "snapshot", "save", file)
			sameStatus(t, shim, file)
			old, want := from.now(t)
			again := filepath.Join(dir, "again.db")
			tool(t, shim, "snapshot", "save", again, "--endpoints", from.ClientAddress())
			sameStatus(t, shim, again)

			tool(t, shim, "snapshot", "restore", again, "--data-dir", filepath.Join(dir, "as-it-was"), "--bump-revision=0")
			to := hold(t, shim, filepath.Join(dir, "as-it-was"))
			rev, have := to.now(t)
			if rev != old {
				t.Errorf("revision %d, want %d", rev, old)
			}
			same(t, "what is there", want, have)
			same(t, "the history", from.past(t, compacted), to.past(t, compacted))

			tool(t, shim, "snapshot", "restore", file, "--data-dir", filepath.Join(dir, "bumped"))
			to = hold(t, shim, filepath.Join(dir, "bumped"))
			_, have = to.now(t)
			same(t, "what is there behind a bump", want, have)
			to.relists(t, old)
		})
	}
}

// TestSnapshotFromShim: what shim holds is what etcd 3.7 holds that was restored from it with etcdutl; and back again, when etcdutl has
// raised the revision.
func TestSnapshotFromShim(t *testing.T) {
	shim, etcdutl, dir := shimPath(t), peers.Path(t, "etcdutl"), t.TempDir()
	from := hold(t, shim, filepath.Join(dir, "from"))
	compacted := from.fill(t)
	file := filepath.Join(dir, "snapshot.db")
	tool(t, shim, "snapshot", "save", file, "--endpoints", from.ClientAddress())
	sameStatus(t, shim, file)
	old, want := from.now(t)
	hash, err := from.HashKV(t.Context(), from.Endpoints()[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	written := filepath.Join(dir, "hashkv.db") // etcdutl hashkv writes to the file it reads
	tool(t, shim, "snapshot", "save", written, "--endpoints", from.ClientAddress())
	same(t, "hashkv", fmt.Sprintf("%d, %d, %d\n", hash.Hash, old, compacted), tool(t, etcdutl, "hashkv", written))

	tool(t, etcdutl, "snapshot", "restore", file, "--data-dir", filepath.Join(dir, "as-it-was"))
	to := hold(t, peers.Path(t, "etcd"), filepath.Join(dir, "as-it-was"))
	rev, have := to.now(t)
	if rev != old {
		t.Errorf("revision %d, want %d", rev, old)
	}
	same(t, "what is there", want, have)
	same(t, "the history", from.past(t, compacted), to.past(t, compacted))

	tool(t, etcdutl, "snapshot", "restore", file, "--data-dir", filepath.Join(dir, "bumped"), "--bump-revision", fmt.Sprint(bump), "--mark-compacted")
	to = hold(t, peers.Path(t, "etcd"), filepath.Join(dir, "bumped"))
	_, have = to.now(t)
	same(t, "what is there behind a bump", want, have)
	to.relists(t, old)

	rev, want = to.now(t)
	tool(t, peers.Path(t, "etcdctl"), "--endpoints", to.ClientAddress(), "snapshot", "save", file)
	sameStatus(t, shim, file)
	tool(t, shim, "snapshot", "restore", file, "--data-dir", filepath.Join(dir, "back"))
	back := hold(t, shim, filepath.Join(dir, "back"))
	_, have = back.now(t)
	same(t, "what is there back again", want, have)
	back.relists(t, rev)
}

// TestSnapshotWithAuth: what etcd guards is guarded behind a restore, with the same users, roles and auth revision, and so on the way back.
func TestSnapshotWithAuth(t *testing.T) {
	shim, etcd, etcdctl, dir := shimPath(t), peers.Path(t, "etcd"), peers.Path(t, "etcdctl"), t.TempDir()
	from := hold(t, etcd, filepath.Join(dir, "from"))
	if _, err := from.Put(t.Context(), "secret", "1"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"user", "add", "root:pw"}, {"user", "grant-role", "root", "root"}, {"user", "add", "somebody:pw2"}, {"role", "add", "r"},
		{"role", "grant-permission", "r", "readwrite", "a", "c"}, {"user", "grant-role", "somebody", "r"}, {"auth", "enable"}} {
		tool(t, etcdctl, append([]string{"--endpoints", from.ClientAddress()}, args...)...)
	}
	state := func(h *holder) string {
		t.Helper()
		ask := func(args ...string) string {
			return tool(t, etcdctl, append([]string{"--endpoints", h.ClientAddress(), "--user", "root:pw"}, args...)...)
		}
		tool(t, etcdctl, "--endpoints", h.ClientAddress(), "--user", "somebody:pw2", "put", "b", "2")
		if out, err := exec.Command(etcdctl, "--endpoints", h.ClientAddress(), "--user", "somebody:pw2", "get", "secret").CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
			t.Errorf("somebody reads what is not theirs: %v, %s", err, out)
		}
		return ask("auth", "status") + ask("user", "list") + ask("user", "get", "somebody") + ask("role", "list") + ask("role", "get", "r") + ask("get", "secret")
	}
	want := state(from)
	file, restored, back := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "restored"), filepath.Join(dir, "back")
	tool(t, etcdctl, "--endpoints", from.ClientAddress(), "--user", "root:pw", "snapshot", "save", file)
	tool(t, shim, "snapshot", "restore", file, "--data-dir", restored)
	to := hold(t, shim, restored)
	same(t, "auth behind a restore", want, state(to))
	tool(t, etcdctl, "--endpoints", to.ClientAddress(), "--user", "root:pw", "snapshot", "save", file)
	tool(t, peers.Path(t, "etcdutl"), "snapshot", "restore", file, "--data-dir", back)
	same(t, "auth back again", want, state(hold(t, etcd, back)))
}
