package conformance

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

var shapesFlag = flag.Int("shapes", 700, "requests per seed of TestRandomShapes, TestRandomUsers and TestRandomMessages")

// seeds are those that a test runs: the one that -seed says, or its fixed ones.
func seeds(fixed ...uint64) []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	return fixed
}

// newPair starts etcd and shim, with flags.
func newPair(t *testing.T, seed uint64, flags ...datadriven.CmdArg) *pair {
	p := &pair{t: t, g: newGenerator(seed)}
	for i, binary := range []string{peers.Path(t, "etcd"), shimPath(t)} {
		s := script.New(script.Config{Binary: binary, Etcdutl: peers.Path(t, "etcdutl"), TempDir: t.TempDir()})
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
		if _, err := s.Run(&datadriven.TestData{Cmd: "server", CmdArgs: flags}); err != nil {
			t.Fatal(err)
		}
		p.sessions[i] = s
	}
	return p
}

// TestRandomShapes is TestRandom with requests of every shape: revisions, limits
// and filters that are negative or as large as can be, ends before their keys,
// values that no enum has, compares with the wrong union or none.
func TestRandomShapes(t *testing.T) {
	for _, seed := range seeds(1, 2) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, seed)
			g := &shapes{generator: p.g}
			for range *shapesFlag {
				p.both(g.next())
			}
			p.both("leases", "", datadriven.CmdArg{Key: "sort"})
			p.restart(datadriven.CmdArg{Key: "kill"})
		})
	}
}

// shapes makes requests as text, of more shapes than generator.
type shapes struct {
	*generator
	compacted int64
	ordered   bool // no end comes before its key
}

// number is a revision, or a bound of one: often a plausible one.
func (g *shapes) number() int64 {
	switch g.r.IntN(8) {
	case 0:
		return int64(-g.r.IntN(4))
	case 1:
		return pick(g.generator, int64(math.MinInt64), math.MaxInt64, math.MaxInt64-1, -1)
	case 2, 3, 4:
		return 0
	}
	return int64(g.revision - g.r.IntN(20) + 3)
}

func (g *shapes) span() string {
	key := pick(g.generator, "a", "a", "a", "b", "b", "b", "c", "z", `\x00`, `a\x00`, "a/", "")
	end := pick(g.generator, "", "", `\x00`, `\x00`, "a", "b", "c", "z", `\xff`, `a\x00`, `\x00\x00`)
	if g.ordered && end != `\x00` && unquote(end) <= unquote(key) {
		end = ""
	}
	if end == "" {
		return fmt.Sprintf(`key:"%s"`, key)
	}
	return fmt.Sprintf(`key:"%s" range_end:"%s"`, key, end)
}

func unquote(s string) string {
	u, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		panic(err)
	}
	return u
}

func (g *shapes) rangeRequest() string {
	b := g.span() + fmt.Sprintf(" revision:%d", g.number())
	if g.oneIn(2) {
		b += fmt.Sprintf(" limit:%d", pick(g.generator, -1, 0, 1, 2, 3, math.MaxInt64, int64(math.MinInt64)))
	}
	if g.oneIn(3) {
		b += fmt.Sprintf(" sort_target:%d sort_order:%d", g.r.IntN(13)%6, g.r.IntN(10)%4-g.r.IntN(20)/19)
	}
	for _, f := range []string{"min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"} {
		if g.oneIn(8) {
			b += fmt.Sprintf(" %s:%d", f, g.number())
		}
	}
	return b + fmt.Sprintf(" keys_only:%t count_only:%t serializable:%t", g.oneIn(5), g.oneIn(6), g.oneIn(4))
}

// put ignores nothing where ignores is false.
func (g *shapes) put(ignores bool) string {
	b, _, _ := strings.Cut(g.span(), " range_end")
	switch {
	case ignores && g.oneIn(10):
		b += " ignore_value:true"
	case g.oneIn(2):
		b += fmt.Sprintf(` value:"%s"`, pick(g.generator, "x", "y", "zz"))
	}
	switch {
	case ignores && g.oneIn(10):
		b += " ignore_lease:true"
	case g.oneIn(3):
		b += fmt.Sprintf(" lease:%d", pick(g.generator, -1, 1, 2, 3, 4))
	}
	return b + fmt.Sprintf(" prev_kv:%t", g.oneIn(3))
}

func (g *shapes) compare() string {
	b := g.span() + fmt.Sprintf(" result:%d target:%d", g.r.IntN(9)%5, g.r.IntN(11)%6)
	switch g.r.IntN(7) {
	case 0:
		return b + fmt.Sprintf(" version:%d", g.r.IntN(4))
	case 1:
		return b + fmt.Sprintf(" create_revision:%d", g.number())
	case 2:
		return b + fmt.Sprintf(" mod_revision:%d", g.number())
	case 3:
		return b + fmt.Sprintf(` value:"%s"`, pick(g.generator, "", "x", "yy", "zz"))
	case 4:
		return b + fmt.Sprintf(" lease:%d", pick(g.generator, -1, 0, 1, 2))
	}
	return b
}

// kind is what a txn may do beside reading.
type kind int

const (
	reads kind = iota
	puts
	deletes // and puts that ignore nothing, see generator
)

func (g *shapes) txn(depth int, k kind) string {
	var b []string
	for range g.r.IntN(3) {
		b = append(b, "compare{"+g.compare()+"}")
	}
	for _, branch := range []string{"success", "failure"} {
		for range g.r.IntN(5) {
			b = append(b, branch+"{"+g.op(depth, k)+"}")
		}
	}
	return strings.Join(b, " ")
}

func (g *shapes) op(depth int, k kind) string {
	switch n := g.r.IntN(12); {
	case n < 4 && k != reads:
		return "request_put{" + g.put(k == puts) + "}"
	case n >= 7 && n < 10 && k == deletes:
		return "request_delete_range{" + strings.ReplaceAll(g.span(), ` range_end:"\x00"`, ` range_end:"z0"`) + fmt.Sprintf(" prev_kv:%t}", g.oneIn(2))
	case n == 10 && depth > 0:
		return "request_txn{" + g.txn(depth-1, k) + "}"
	case n == 11 && g.oneIn(10):
		return ""
	}
	return "request_range{" + g.rangeRequest() + "}"
}

// compact never asks for 0, after which etcd answers HashKV with a hash that it has kept.
func (g *shapes) compact() string {
	rev := pick(g.generator, g.number(), int64(g.revision-g.r.IntN(10)))
	if rev == 0 {
		rev = 1
	}
	if rev <= int64(g.revision) {
		g.compacted = max(g.compacted, rev)
	}
	return fmt.Sprintf("revision:%d physical:%t", rev, g.oneIn(2))
}

// next returns one request.
func (g *shapes) next() (cmd, input string) {
	lease := pick(g.generator, 1, 2, 3, 4, -1, math.MaxInt64, int64(math.MinInt64))
	switch n := g.r.IntN(100); {
	case n < 20:
		return "put", g.put(true)
	case n < 40:
		return "range", g.rangeRequest()
	case n < 46:
		return "rangestream", strings.ReplaceAll(g.rangeRequest(), "sort_order:0", "sort_order:1") // see generator
	case n < 52:
		return "delete", g.span() + fmt.Sprintf(" prev_kv:%t", g.oneIn(2))
	case n < 80:
		return "txn", g.txn(3, kind(g.r.IntN(3)))
	case n < 83:
		return "compact", g.compact()
	case n < 88:
		return "grant", fmt.Sprintf("ID:%d TTL:%d", lease, pick(g.generator, 5000, 10000, 9000000000, 9000000001, math.MaxInt64))
	case n < 91:
		return "revoke", fmt.Sprintf("ID:%d", lease)
	case n < 93:
		return "ttl", fmt.Sprintf("ID:%d keys:%t", lease, g.oneIn(2))
	case n < 96:
		return "keepalive", fmt.Sprintf("ID:%d", lease)
	case n < 98:
		if rev := g.number(); rev > g.compacted { // at the compacted revision etcd has another hash, see mvcc's HashKV
			return "hashkv", fmt.Sprintf("revision:%d", rev)
		}
		return "hashkv", ""
	}
	return "alarm", fmt.Sprintf("action:%d memberID:%d alarm:%d", pick(g.generator, 0, 2), g.r.IntN(3), g.r.IntN(4))
}
