package registry

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestKeys runs the keys of testdata/keys.txt: the shapes that apiservers 1.36
// and 1.37 were seen to write, and what others write beside them.
func TestKeys(t *testing.T) {
	datadriven.RunTest(t, "testdata/keys.txt", func(t *testing.T, d *datadriven.TestData) string {
		var o Options
		d.MaybeScanArgs(t, "prefix", &o.Prefix)
		g := New(o)
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			if d.Cmd != "keys" {
				d.Fatalf(t, "unknown command")
			}
			describeKey(&out, g, strings.TrimSpace(line))
		}
		return out.String()
	})
}

func describeKey(out *strings.Builder, g *Grammar, key string) {
	r := g.ResourceOf([]byte(key))
	fmt.Fprintf(out, "%s: %s %q", key, kinds[g.KindOf([]byte(key))], r)
	if k, ok := parse(g, []byte(key)); ok {
		if k.group != "" {
			fmt.Fprintf(out, " group=%s", k.group)
		}
		fmt.Fprintf(out, " resource=%s", k.resource)
		if k.namespace != "" {
			fmt.Fprintf(out, " namespace=%s", k.namespace)
		}
		if k.name != "" {
			fmt.Fprintf(out, " name=%s", k.name)
		}
	}
	out.WriteByte('\n')
}

var kinds = [...]string{"foreign", "object", "collection", "probe", "compact-rev", "other"} // by Kind

// parsed is what a key below the prefix says.
type parsed struct {
	group, resource string
	namespace       string // empty for cluster-wide objects
	name            string // empty for a collection
}

// parse takes a key apart, as what looks at less of it is compared with. ok is
// false for keys outside the grammar. A single segment behind the resource is a
// name; the key does not say whether "/registry/pods/default" was meant as the
// namespace of a list.
func parse(g *Grammar, key []byte) (k parsed, ok bool) {
	resource, rest, ok := g.cut(key)
	if !ok || resource == nil {
		return parsed{}, false
	}
	k.group, k.resource = splitPath(string(resource))
	if len(rest) <= 1 {
		return k, true
	}
	first, second, two := strings.Cut(string(rest[1:]), "/")
	if first == "" || strings.Contains(second, "/") {
		return parsed{}, false
	}
	if two {
		k.namespace, k.name = first, second
	} else {
		k.name = first
	}
	return k, true
}

func TestBuiltinNamesAreUniqueAndWellFormed(t *testing.T) {
	seen := map[string]string{}
	for _, p := range builtin {
		name := nameOf(p)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both called %s", p, other, name)
		}
		seen[name] = p
		if strings.ContainsRune(name, '/') {
			t.Errorf("%s is called %s", p, name)
		}
		if got := ResourceOf([]byte("/registry/" + p + "/ns/n")); got != name {
			t.Errorf("%s: resource %q, want %q", p, got, name)
		}
	}
	for p, name := range renamed {
		if seen[name] != p {
			t.Errorf("%s is renamed and not built in", p)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	g := New(Options{ResourcesMax: len(builtin) + 10})
	key := func(i int) []byte { return fmt.Appendf(nil, "/registry/example.com/things%d/ns/n", i) }
	for round := range 2 {
		for i := range 100 {
			want := fmt.Sprintf("things%d.example.com", i)
			if i >= 10 {
				want = Other
			}
			if got := g.ResourceOf(key(i)); got != want {
				t.Fatalf("round %d: resource %d is %q, want %q", round, i, got, want)
			}
		}
	}
	if got := g.ResourceOf([]byte("/registry/pods/a/b")); got != "pods" {
		t.Fatalf("built-in resource is %q with a full table", got)
	}
	if got := len(*g.names.Load()); got != g.max {
		t.Fatalf("%d names, want %d", got, g.max)
	}
}

func TestNamesAreStableUnderConcurrency(t *testing.T) {
	g := New(Options{ResourcesMax: len(builtin) + 20})
	var answers [8][40]string
	var wg sync.WaitGroup
	for w := range answers {
		wg.Go(func() {
			for i := range answers[w] {
				at := (i + w*5) % len(answers[w])
				answers[w][at] = g.ResourceOf(fmt.Appendf(nil, "/registry/r%d/n", at))
			}
		})
	}
	wg.Wait()
	for w := range answers {
		if answers[w] != answers[0] {
			t.Fatalf("two goroutines were told different names:\n%v\n%v", answers[0], answers[w])
		}
	}
}

func TestNoAllocation(t *testing.T) {
	g := New(Options{})
	keys := [][]byte{
		[]byte("/registry/pods/default/web-0"), []byte("/registry/services/specs/default/web"),
		[]byte("/registry/example.com/widgets/default/w"), []byte("/calico/ipam/v2"), []byte("/registry/BAD/x"),
	}
	run := func() {
		for _, k := range keys {
			g.ResourceOf(k)
			g.KindOf(k)
			g.NamespaceOf(k)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestOptions(t *testing.T) {
	bad := Options{Prefix: "/", ResourcesMax: 3}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Fatalf("want two errors, got %v", err)
	}
	if got := string(New(Options{Prefix: "kubernetes.io//x/"}).prefix); got != "/kubernetes.io/x/" {
		t.Fatalf("prefix %q", got)
	}
}

func FuzzKeys(f *testing.F) {
	for _, k := range []string{"/registry/pods/a/b", "/registry/a.b/c/d/e", "/registry/services/specs/a/b", "/registry//", "compact_rev_key"} {
		f.Add([]byte(k))
	}
	g := New(Options{})
	f.Fuzz(func(t *testing.T, key []byte) {
		k, ok := parse(g, key)
		r := g.ResourceOf(key)
		if ok && (k.resource == "" || r == "") {
			t.Fatalf("%q: parsed to %+v with resource %q", key, k, r)
		}
		if r != "" && !bytes.HasPrefix(key, g.prefix) {
			t.Fatalf("%q outside the prefix has resource %q", key, r)
		}
		if got, want := string(g.NamespaceOf(key)), k.namespace; got != want && k.name != "" {
			t.Fatalf("%q: namespace %q, want %q", key, got, want)
		}
		switch g.KindOf(key) {
		case KindObject:
			if !ok || k.name == "" {
				t.Fatalf("%q is an object and parses to %+v", key, k)
			}
		case KindForeign, KindCompactRev:
			if r != "" {
				t.Fatalf("foreign key %q has resource %q", key, r)
			}
		}
	})
}

func BenchmarkResourceOf(b *testing.B) {
	for _, k := range []string{
		"/registry/pods/namespace-1/some-deployment-5d4f8c9f6b-x2x4z", "/registry/services/specs/default/web",
		"/registry/example.com/widgets/default/w", "/calico/ipam/v2/host",
	} {
		b.Run(k, func(b *testing.B) {
			key := []byte(k)
			b.ReportAllocs()
			for b.Loop() {
				ResourceOf(key)
			}
		})
	}
}
