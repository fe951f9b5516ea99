// Package test holds what is true of the whole tree. It is imported by nobody.
package test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kubeshim/shim"

// importTable says which packages of ours a package may import; it is the
// table of ARCHITECTURE.md. A new package needs a row. "test" and "hack" below
// stand for all that is under them.
var importTable = map[string][]string{
	"pkg/registry":               {},
	"pkg/request":                {},
	"pkg/auth":                   {},
	"pkg/auth/token":             {"pkg/auth"},
	"pkg/auth/password":          {},
	"pkg/discovery":              {},
	"pkg/handover":               {},
	"pkg/eagerio":                {},
	"pkg/raftstore/mvcc":         {"pkg/raftstore/mvcc/cowtree", "pkg/request", "pkg/auth"},
	"pkg/raftstore/mvcc/cowtree": {},
	"pkg/raftstore/vfs":          {},
	"pkg/raftstore/wal":          {"pkg/raftstore/vfs"},
	"pkg/raftstore/membership":   {},
	"pkg/raftstore/transport":    {"pkg/eagerio", "pkg/handover"},
	"pkg/raftstore/backend":      {"pkg/auth", "pkg/raftstore/mvcc", "pkg/raftstore/membership", "pkg/raftstore/vfs"},
	"pkg/raftstore": {
		"pkg/raftstore/mvcc", "pkg/raftstore/wal", "pkg/raftstore/vfs", "pkg/raftstore/membership",
		"pkg/raftstore/backend", "pkg/raftstore/transport", "pkg/compact", "pkg/auth",
	},
	"pkg/watchcache": {"pkg/raftstore/mvcc", "pkg/registry"},
	"pkg/compact":    {"pkg/raftstore/mvcc"},
	"pkg/etcdapi": {
		"pkg/raftstore/mvcc", "pkg/raftstore", "pkg/raftstore/membership", "pkg/watchcache", "pkg/registry",
		"pkg/etcdapi/grpcmetrics", "pkg/eagerio", "pkg/handover", "pkg/request", "pkg/auth", "pkg/auth/token", "pkg/auth/password",
	},
	"pkg/etcdapi/grpcmetrics": {},
	"cmd/shim":                {"pkg"},
	"internal/freeport":       {},
	"test":                    {"pkg", "cmd", "test", "internal"},
	"hack":                    {"pkg", "hack"},
}

// testImports is what the tests of a package may import beyond its row.
var testImports = map[string][]string{
	"cmd/shim":                 {"internal"},
	"pkg/discovery":            {"internal"},
	"pkg/etcdapi":              {"internal"},
	"pkg/raftstore":            {"internal"},
	"pkg/raftstore/membership": {"internal"},
	"pkg/raftstore/mvcc":       {"internal"},
	"pkg/raftstore/transport":  {"internal"},
}

// purePackages have no clock, disk, network, chance or log.
var purePackages = []string{"pkg/raftstore/mvcc", "pkg/raftstore/mvcc/cowtree", "pkg/registry", "pkg/request", "pkg/auth"}

// impure is what they may therefore not import, with all below it.
var impure = []string{
	"crypto/rand", "io/ioutil", "log", "math/rand", "net", "os", "syscall", "time", "golang.org/x/sys",
	"google.golang.org/grpc", "github.com/prometheus",
}

// logPackages may log; everything else hands out events.
var logPackages = []string{"cmd", "pkg/etcdapi", "test", "hack"}

const (
	fileLinesMax     = 800
	functionLinesMax = 70
)

// longFunctions lists the functions that may be longer, each with the reason:
// event loops, whose cases are read side by side.
var longFunctions = map[string]string{}

// goFile is one parsed file of the main module.
type goFile struct {
	path  string // from the root, with slashes
	dir   string
	test  bool
	lines int
	fset  *token.FileSet
	ast   *ast.File
}

// tree answers every Go file of the main module that is written by hand.
func tree(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p == ".." {
				return nil
			}
			if name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		rel, err := filepath.Rel("..", p)
		if err != nil {
			return err
		}
		f, err := parse(p, filepath.ToSlash(rel))
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files: the test does not run in its directory")
	}
	return files
}

// parse reads the file at p, which the root knows as name.
func parse(p, name string) (goFile, error) {
	src, err := os.ReadFile(p)
	if err != nil {
		return goFile{}, err
	}
	f := goFile{
		path: name, dir: path.Dir(name), fset: token.NewFileSet(),
		lines: bytes.Count(src, []byte("\n")), test: strings.HasSuffix(name, "_test.go"),
	}
	f.ast, err = parser.ParseFile(f.fset, name, src, parser.ParseComments)
	return f, err
}

// imports answers what the file imports.
func (f goFile) imports(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", f.path, spec.Path.Value, err)
		}
		paths = append(paths, p)
	}
	return paths
}

// under says whether p is one of the roots or below one.
func under(p string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return p == root || strings.HasPrefix(p, root+"/")
	})
}

// row answers the row of the import table for a directory.
func row(dir string) (allowed []string, ok bool) {
	if allowed, ok = importTable[dir]; ok {
		return allowed, true
	}
	for _, root := range []string{"test", "hack"} {
		if under(dir, root) {
			return importTable[root], true
		}
	}
	return nil, false
}

func TestImports(t *testing.T) {
	for _, f := range tree(t) {
		allowed, ok := row(f.dir)
		if !ok {
			t.Errorf("%s: package %s has no row in the import table", f.path, f.dir)
			continue
		}
		for _, p := range f.imports(t) {
			ours, found := strings.CutPrefix(p, module+"/")
			if !found || ours == f.dir {
				continue // an external test imports its own package
			}
			if mayImport(allowed, ours) || (f.test && mayImport(testImports[f.dir], ours)) {
				continue
			}
			t.Errorf("%s: %s may not import %s", f.path, f.dir, ours)
		}
	}
}

// mayImport says whether p is in the list. The roots pkg, cmd, test and hack
// stand for all below them, packages only for themselves.
func mayImport(allowed []string, p string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == p || (!strings.Contains(a, "/") && under(p, a))
	})
}

func TestImportTableHasNoCycle(t *testing.T) {
	var visit func(dir string, above []string)
	visit = func(dir string, above []string) {
		if slices.Contains(above, dir) {
			t.Errorf("the import table allows a cycle: %s", strings.Join(append(above, dir), " -> "))
			return
		}
		for _, next := range importTable[dir] {
			if strings.Contains(next, "/") {
				visit(next, append(slices.Clone(above), dir))
			}
		}
	}
	for dir := range importTable {
		visit(dir, nil)
	}
}

func TestPurePackages(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || !slices.Contains(purePackages, f.dir) {
			continue
		}
		for _, p := range f.imports(t) {
			if under(p, impure...) {
				t.Errorf("%s: %s is pure and may not import %s", f.path, f.dir, p)
			}
		}
	}
}

func TestLoggingAtTheEdges(t *testing.T) {
	for _, f := range tree(t) {
		for _, p := range f.imports(t) {
			if (p == "log" || p == "log/slog") && !under(f.dir, logPackages...) {
				t.Errorf("%s: %s may not log by %s", f.path, f.dir, p)
			}
		}
	}
}

func TestMetricsAreNamedInOneFile(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || !under(f.dir, "pkg") || strings.HasSuffix(f.path, "/metrics.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || (sel.Sel.Name != "NewDesc" && !strings.HasSuffix(sel.Sel.Name, "Opts")) {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "prometheus" {
				t.Errorf("%s: names a metric; metrics.go is for that", f.fset.Position(n.Pos()))
			}
			return true
		})
	}
}

func TestFileBudget(t *testing.T) {
	for _, f := range tree(t) {
		if f.lines > fileLinesMax {
			t.Errorf("%s has %d lines, %d are the limit", f.path, f.lines, fileLinesMax)
		}
	}
}

func TestFunctionBudget(t *testing.T) {
	used := map[string]bool{}
	for _, f := range tree(t) {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			if lines <= functionLinesMax {
				continue
			}
			name := f.dir + "." + functionName(fn)
			if reason := longFunctions[name]; reason != "" {
				used[name] = true
				continue
			}
			t.Errorf("%s: %s has %d lines, %d are the limit", f.path, name, lines, functionLinesMax)
		}
	}
	for name := range longFunctions {
		if !used[name] {
			t.Errorf("%s is listed as a long function and is not one", name)
		}
	}
}

// functionName answers Function or Type.Method.
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	typ := fn.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	has := map[string]bool{}
	for _, f := range tree(t) {
		if f.test || !under(f.dir, "pkg", "cmd") {
			continue
		}
		has[f.dir] = has[f.dir] || false
		if !strings.HasSuffix(f.path, "/doc.go") {
			continue
		}
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command " + f.dir[strings.LastIndexByte(f.dir, '/')+1:] + " "
		}
		if !strings.HasPrefix(f.ast.Doc.Text(), want) {
			t.Errorf("%s: the comment does not begin with %q", f.path, want)
		}
		has[f.dir] = true
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("package %s has no doc.go", dir)
		}
	}
}

// TestNothingOfTheMachine looks through all tracked files for what is true on
// one machine only: paths of a home or a work tree, its name, and the hosts
// that it takes modules from.
func TestNothingOfTheMachine(t *testing.T) {
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a git work tree: %v", err)
	}
	// Written so that this file does not find itself.
	pattern := `(^|[^\w.*-])/(ro` + `ot|wo` + `rk|ho` + `me/\w+|Us` + `ers/\w+)/`
	for _, host := range machineHosts() {
		pattern += "|" + regexp.QuoteMeta(host)
	}
	found := regexp.MustCompile(pattern)
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if bytes.IndexByte(data, 0) >= 0 {
			continue // not text
		}
		for i, line := range strings.Split(string(data), "\n") {
			if m := found.FindString(line); m != "" {
				t.Errorf("%s:%d: %q belongs to a machine", name, i+1, m)
			}
		}
	}
}

// publicHosts are those of every Go installation.
var publicHosts = []string{"proxy.golang.org", "sum.golang.org", "localhost", ""}

// machineHosts answers the full names under which this machine knows itself and
// its module proxies, without those everybody has. A name without a dot may be
// any word, and says nothing.
func machineHosts() []string {
	var hosts []string
	add := func(host string) {
		if !slices.Contains(publicHosts, host) && strings.Contains(host, ".") {
			hosts = append(hosts, host)
		}
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	out, _ := exec.Command("go", "env", "GOPROXY", "GOSUMDB").Output()
	text := string(out) + " " + os.Getenv("HTTP_PROXY") + " " + os.Getenv("HTTPS_PROXY")
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,|\n", r) }) {
		if u, err := url.Parse(field); err == nil {
			if ip := u.Hostname(); ip != "127.0.0.1" && ip != "::1" {
				add(ip)
			}
		}
	}
	return hosts
}

func TestPolicyFindsWhatItLooksFor(t *testing.T) {
	for _, c := range []struct {
		allowed []string
		p       string
		want    bool
	}{
		{[]string{"pkg/raftstore"}, "pkg/raftstore", true},
		{[]string{"pkg/raftstore"}, "pkg/raftstore/mvcc", false},
		{[]string{"pkg"}, "pkg/raftstore/mvcc", true},
		{[]string{"pkg"}, "pkgs/x", false},
		{nil, "test", false},
	} {
		if got := mayImport(c.allowed, c.p); got != c.want {
			t.Errorf("%v importing %s: %v", c.allowed, c.p, got)
		}
	}
	if _, ok := row("pkg/unheard/of"); ok {
		t.Error("an unknown package has a row")
	}
	dir := t.TempDir()
	p := filepath.Join(dir, "long.go")
	src := fmt.Sprintf("package p\n\ntype T[K any] struct{}\n\nfunc (t *T[K]) f() {%s}\n", strings.Repeat("\n", functionLinesMax))
	if err := os.WriteFile(p, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := parse(p, "pkg/p/long.go")
	if err != nil {
		t.Fatal(err)
	}
	fn := f.ast.Decls[1].(*ast.FuncDecl)
	if lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; lines != functionLinesMax+1 {
		t.Errorf("%d lines counted", lines)
	}
	if got := functionName(fn); got != "T.f" {
		t.Errorf("name %s", got)
	}
}
