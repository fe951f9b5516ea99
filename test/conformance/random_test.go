package conformance

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "the one seed of TestRandom; 0 runs its fixed ones")
	stepsFlag = flag.Int("steps", 400, "requests per seed of TestRandom")
)

// TestRandom sends the same random requests to etcd and to shim and compares
// every answer, the events of watches, and the hash of all keys; on the way
// both are killed and started again, and later stopped and started again.
func TestRandom(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	etcd, shim, etcdutl := peers.Path(t, "etcd"), shimPath(t), peers.Path(t, "etcdutl")
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			p := &pair{t: t, g: newGenerator(seed)}
			for i, binary := range []string{etcd, shim} {
				s := script.New(script.Config{Binary: binary, Etcdutl: etcdutl, TempDir: t.TempDir()})
				defer func() {
					if err := s.Close(); err != nil {
						t.Errorf("stop: %v", err)
					}
				}()
				p.sessions[i] = s
			}
			p.converse(*stepsFlag)
		})
	}
}

// pair is two servers that hear the same.
type pair struct {
	t        *testing.T
	g        *generator
	sessions [2]*script.Session // etcd, shim
	streams  []string
}

var headerRevision = regexp.MustCompile(`^header\{(\d+)`)

// both runs a directive on the two servers; a difference ends the test.
func (p *pair) both(cmd, input string, args ...datadriven.CmdArg) {
	p.t.Helper()
	var out [2]string
	for i, s := range p.sessions {
		var err error
		out[i], err = s.Run(&datadriven.TestData{Cmd: cmd, Input: input, CmdArgs: args})
		if err != nil {
			p.t.Fatalf("%s %v\n%s\n%v", cmd, args, input, err)
		}
	}
	if testing.Verbose() {
		p.t.Logf("%s %v %s\n%s", cmd, args, input, out[0])
	}
	if out[0] != out[1] {
		p.t.Fatalf("%s %v\n%s\netcd:\n%s\nshim:\n%s\nrun again with -seed %d", cmd, args, input, out[0], out[1], p.g.seed)
	}
	if m := headerRevision.FindStringSubmatch(out[0]); m != nil {
		p.g.revision, _ = strconv.Atoi(m[1])
	}
}

func (p *pair) converse(steps int) {
	for i := range steps {
		switch {
		case i%40 == 20:
			p.watch(p.g.liveWatch())
		case i%50 == 49:
			p.both("hashkv", "")
		case i == steps/2:
			p.restart(datadriven.CmdArg{Key: "kill"})
		case i == steps*3/4:
			p.restart()
		}
		p.both(p.g.next())
	}
	for range 5 {
		p.watch(p.g.pastWatch())
	}
	p.fence()
	p.both("snapshot", "")
}

func (p *pair) restart(how ...datadriven.CmdArg) {
	p.fence()
	p.both("restart", "", how...)
	p.both("range", `key:"\x00" range_end:"\x00"`)
	p.both("hashkv", "")
}

// watch opens a stream with one watch on it.
func (p *pair) watch(create string) {
	name := datadriven.CmdArg{Key: fmt.Sprintf("w%d", len(p.streams))}
	p.streams = append(p.streams, name.Key)
	p.both("watch-open", "", name)
	p.both("watch-send", create, name)
	p.both("watch-recv", "", name)
}

// fence writes a key that every watch sees and compares what they saw until it.
func (p *pair) fence() {
	p.both("put", `key:"~fence" value:"x"`)
	for _, name := range p.streams {
		p.both("watch-recv", "", datadriven.CmdArg{Key: name},
			datadriven.CmdArg{Key: "events"}, datadriven.CmdArg{Key: "until", Vals: []string{"~fence"}})
	}
	p.streams = nil
}

// generator makes requests as text. It knows only the current revision.
type generator struct {
	seed     uint64
	r        *rand.Rand
	revision int
	deletes  bool // the txn being made deletes, so its puts ignore nothing
}

func newGenerator(seed uint64) *generator {
	return &generator{seed: seed, r: rand.New(rand.NewPCG(seed, 0)), revision: 1}
}

var keys = []string{"a", "a/1", "a/2", "b", "b/1", "c", "/registry/pods/d/p", "/registry/pods/d/q", "\\x00", "z"}

func (g *generator) oneIn(n int) bool { return g.r.IntN(n) == 0 }

func pick[T any](g *generator, from ...T) T { return from[g.r.IntN(len(from))] }

func (g *generator) key() string {
	if g.oneIn(60) {
		return `key:""`
	}
	return fmt.Sprintf(`key:"%s"`, pick(g, keys...))
}

// span is a key, and often an end.
func (g *generator) span() string {
	switch g.r.IntN(5) {
	case 0:
		return g.key() + ` range_end:"\x00"`
	case 1:
		return `key:"\x00" range_end:"\xff"`
	case 2:
		return fmt.Sprintf(`%s range_end:"%s"`, g.key(), pick(g, keys...))
	}
	return g.key()
}

// rev is a revision around those there are; 0 most of the time.
func (g *generator) rev() int {
	if !g.oneIn(3) {
		return 0
	}
	return max(g.revision-g.r.IntN(25)+2, -1)
}

func (g *generator) lease() int {
	if !g.oneIn(4) {
		return 0
	}
	return 1 + g.r.IntN(4)
}

// next returns one request.
func (g *generator) next() (cmd, input string) {
	switch n := g.r.IntN(100); {
	case n < 25:
		return "put", g.put()
	case n < 45:
		return "range", g.rangeRequest()
	case n < 50:
		// A target without an order slips through etcd's check of what it can
		// stream, and makes it count from the wrong key.
		return "rangestream", strings.ReplaceAll(g.rangeRequest(), "NONE", "ASCEND")
	case n < 60:
		return "delete", g.deleteRange()
	case n < 88:
		// A put that ignores the value or lease of a key which the same txn
		// deleted before it crashes etcd 3.7.3.
		g.deletes = g.oneIn(2)
		defer func() { g.deletes = false }()
		return "txn", g.txn(2)
	case n < 91:
		return "compact", fmt.Sprintf("revision:%d physical:%t", max(1, g.revision-g.r.IntN(12)+1), g.oneIn(2))
	case n < 95:
		return "grant", fmt.Sprintf("ID:%d TTL:%d", 1+g.r.IntN(4), 1000+g.r.IntN(1000))
	case n < 98:
		return "revoke", fmt.Sprintf("ID:%d", 1+g.r.IntN(4))
	}
	return "ttl", fmt.Sprintf("ID:%d keys:true", 1+g.r.IntN(4))
}

func (g *generator) put() string {
	b := g.key()
	if !g.deletes && g.oneIn(12) {
		b += " ignore_value:true"
	}
	if !g.oneIn(8) {
		b += fmt.Sprintf(` value:"%s"`, strings.Repeat(pick(g, "x", "y", "zz", "\\n"), g.r.IntN(6)))
	}
	if !g.deletes && g.oneIn(12) {
		b += " ignore_lease:true"
	}
	return b + fmt.Sprintf(" lease:%d prev_kv:%t", g.lease(), g.oneIn(3))
}

// deleteRange has no open end in a txn: etcd 3.7.3 does not see that a put is
// inside it, and a compaction of that revision then loses the key and ends it.
func (g *generator) deleteRange() string {
	if g.deletes {
		return fmt.Sprintf(`%s range_end:"%s" prev_kv:%t`, g.key(), pick(g, append(keys[:8:8], "c0", "z0")...), g.oneIn(2))
	}
	return fmt.Sprintf("%s prev_kv:%t", g.span(), g.oneIn(2))
}

func (g *generator) rangeRequest() string {
	b := g.span() + fmt.Sprintf(" revision:%d", g.rev())
	if g.oneIn(3) {
		b += fmt.Sprintf(" limit:%d", g.r.IntN(5)-1)
	}
	if g.oneIn(4) {
		b += fmt.Sprintf(" sort_target:%s sort_order:%s", pick(g, "KEY", "VERSION", "CREATE", "MOD", "VALUE"), pick(g, "NONE", "ASCEND", "DESCEND"))
	}
	if g.oneIn(6) {
		b += fmt.Sprintf(" %s:%d", pick(g, "min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"), max(0, g.revision-g.r.IntN(20)))
	}
	if g.oneIn(6) {
		b += " keys_only:true"
	}
	if g.oneIn(8) {
		b += " count_only:true"
	}
	return b + fmt.Sprintf(" serializable:%t", g.oneIn(4))
}

// txn nests up to depth times.
func (g *generator) txn(depth int) string {
	var b []string
	for range g.r.IntN(3) {
		b = append(b, "compare{"+g.compare()+"}")
	}
	for _, branch := range []string{"success", "failure"} {
		for range g.r.IntN(4) {
			b = append(b, branch+"{"+g.op(depth)+"}")
		}
	}
	return strings.Join(b, " ")
}

func (g *generator) op(depth int) string {
	switch n := g.r.IntN(10); {
	case n < 5:
		return "request_put{" + g.put() + "}"
	case n < 7:
		return "request_range{" + g.rangeRequest() + "}"
	case n < 9 && g.deletes:
		return "request_delete_range{" + g.deleteRange() + "}"
	case n < 9:
		return "request_put{" + g.put() + "}"
	case depth > 0:
		return "request_txn{" + g.txn(depth-1) + "}"
	}
	return ""
}

func (g *generator) compare() string {
	b := pick(g, g.key(), g.key(), g.span()) + " result:" + pick(g, "EQUAL", "GREATER", "LESS", "NOT_EQUAL")
	switch g.r.IntN(5) {
	case 0:
		return b + fmt.Sprintf(" target:VERSION version:%d", g.r.IntN(3))
	case 1:
		return b + fmt.Sprintf(" target:CREATE create_revision:%d", pick(g, 0, g.revision-g.r.IntN(20)))
	case 2:
		return b + fmt.Sprintf(" target:MOD mod_revision:%d", pick(g, 0, g.revision-g.r.IntN(20)))
	case 3:
		return b + fmt.Sprintf(` target:VALUE value:"%s"`, pick(g, "", "x", "yy", "z"))
	}
	return b + fmt.Sprintf(" target:LEASE lease:%d", g.r.IntN(4))
}

// liveWatch starts now or soon; its range holds the fence. Without prev_kv:
// etcd looks that up when it sends, and a compaction may be faster.
func (g *generator) liveWatch() string {
	start := 0
	if g.oneIn(3) {
		start = g.revision + 1 + g.r.IntN(3)
	}
	return fmt.Sprintf(`create_request{%s range_end:"\x00" start_revision:%d filters:%s}`,
		pick(g, `key:"\x00"`, `key:"a"`, `key:"/registry/"`, `key:"b/"`), start, pick(g, "NODELETE", "7"))
}

// pastWatch starts at any revision, compacted ones too.
func (g *generator) pastWatch() string {
	return fmt.Sprintf(`create_request{%s range_end:"\x00" start_revision:%d prev_kv:%t}`,
		pick(g, `key:"\x00"`, `key:"a"`, `key:"/registry/"`, `key:"b/"`), 1+g.r.IntN(g.revision), g.oneIn(2))
}
