package registry

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
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
			fields := strings.Fields(line)
			switch d.Cmd {
			case "keys":
				describeKey(&out, g, fields[0])
			case "ranges":
				r := g.RangeResource([]byte(fields[0]), []byte(fields[1]))
				fmt.Fprintf(&out, "%s %s: %q\n", fields[0], fields[1], r)
			default:
				d.Fatalf(t, "unknown command")
			}
		}
		return out.String()
	})
}

func describeKey(out *strings.Builder, g *Grammar, key string) {
	r := g.ResourceOf([]byte(key))
	fmt.Fprintf(out, "%s: %s %q", key, g.KindOf([]byte(key)), r)
	if c := ClassOf(r); c != 0 {
		fmt.Fprintf(out, " [%s]", c)
	}
	if k, ok := g.Parse([]byte(key)); ok {
		if k.Group != "" {
			fmt.Fprintf(out, " group=%s", k.Group)
		}
		fmt.Fprintf(out, " resource=%s", k.Resource)
		if k.Namespace != "" {
			fmt.Fprintf(out, " namespace=%s", k.Namespace)
		}
		if k.Name != "" {
			fmt.Fprintf(out, " name=%s", k.Name)
		}
	}
	out.WriteByte('\n')
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
	for name := range classes {
		if _, ok := seen[name]; !ok {
			t.Errorf("%s has a class and is not built in", name)
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
	end := []byte("/registry/pods0")
	run := func() {
		for _, k := range keys {
			g.ResourceOf(k)
			g.KindOf(k)
			g.NamespaceOf(k)
			g.RangeResource(k, end)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestRangeResource checks invariant 2 on random ranges: every key in a range
// with a resource has that resource.
func TestRangeResource(t *testing.T) {
	g := New(Options{ResourcesMax: len(builtin) + 4})
	segment := rapid.SampledFrom([]string{"", "pods", "podsx", "services", "specs", "endpoints", "a.b", "ingress", "n", "0", "\xff", "P"})
	keyGen := rapid.Custom(func(t *rapid.T) []byte {
		k := rapid.SampledFrom([]string{"/registry", "/registr", "/registry0"}).Draw(t, "prefix")
		for range rapid.IntRange(0, 5).Draw(t, "segments") {
			k += "/" + segment.Draw(t, "segment")
		}
		return []byte(k)
	})
	endGen := func(from []byte) *rapid.Generator[[]byte] {
		return rapid.OneOf(keyGen, rapid.Custom(func(t *rapid.T) []byte {
			end := bytes.Clone(from[:rapid.IntRange(1, len(from)).Draw(t, "cut")])
			end[len(end)-1]++
			return end
		}))
	}
	rapid.Check(t, func(t *rapid.T) {
		from := keyGen.Draw(t, "from")
		end := endGen(from).Draw(t, "end")
		r := g.RangeResource(from, end)
		if r == "" {
			return
		}
		for range 8 {
			k := rapid.OneOf(keyGen, rapid.Custom(func(t *rapid.T) []byte {
				return append(bytes.Clone(from), segment.Draw(t, "tail")...)
			})).Draw(t, "key")
			if bytes.Compare(k, from) >= 0 && bytes.Compare(k, end) < 0 && g.ResourceOf(k) != r {
				t.Fatalf("range [%q, %q) is of %q and holds %q of %q", from, end, r, k, g.ResourceOf(k))
			}
		}
	})
}

func TestOptions(t *testing.T) {
	bad := Options{Prefix: "/", ResourcesMax: 3}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Fatalf("want two errors, got %v", err)
	}
	if got := string(New(Options{Prefix: "kubernetes.io//x/"}).Prefix()); got != "/kubernetes.io/x/" {
		t.Fatalf("prefix %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range []string{"/registry/pods/a/b", "/registry/a.b/c/d/e", "/registry/services/specs/a/b", "/registry//", "compact_rev_key"} {
		f.Add([]byte(k))
	}
	g := New(Options{})
	f.Fuzz(func(t *testing.T, key []byte) {
		k, ok := g.Parse(key)
		r := g.ResourceOf(key)
		if ok && (k.Resource == "" || r == "") {
			t.Fatalf("%q: parsed to %+v with resource %q", key, k, r)
		}
		if r != "" && !bytes.HasPrefix(key, g.Prefix()) {
			t.Fatalf("%q outside the prefix has resource %q", key, r)
		}
		if got, want := string(g.NamespaceOf(key)), k.Namespace; got != want && k.Name != "" {
			t.Fatalf("%q: namespace %q, want %q", key, got, want)
		}
		switch g.KindOf(key) {
		case KindObject:
			if !ok || k.Name == "" {
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
