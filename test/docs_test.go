package test

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// architectureRow is a row of ARCHITECTURE.md's table of packages.
var architectureRow = regexp.MustCompile("(?m)^\\| `((?:pkg|cmd|internal)/[^`]+)` \\| [^|]+ \\| ([^|]+) \\|$")

// TestArchitectureHasTheImportTable: both tables say the same. There a package of
// ours goes by the end of its path.
func TestArchitectureHasTheImportTable(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := architectureRow.FindAllStringSubmatch(string(text), -1)
	told := map[string]bool{}
	for _, row := range rows {
		dir, words := row[1], strings.Split(row[2], ", ")
		told[dir] = true
		var want []string
		for _, p := range importTable[dir] {
			want = append(want, strings.TrimPrefix(p, "pkg/"))
		}
		switch row[2] {
		case "-":
			words = nil
		case "all of pkg":
			words = []string{"pkg"}
		}
		if len(words) != len(want) {
			t.Errorf("%s may import %q, says ARCHITECTURE.md; %q, says the import table", dir, words, want)
			continue
		}
		for _, w := range words {
			if !slices.ContainsFunc(want, func(p string) bool { return p == w || strings.HasSuffix(p, "/"+w) }) {
				t.Errorf("%s may import %s, says ARCHITECTURE.md; %q, says the import table", dir, w, want)
			}
		}
	}
	for dir := range importTable {
		if strings.Contains(dir, "/") && !told[dir] {
			t.Errorf("%s is not in the table of ARCHITECTURE.md", dir)
		}
	}
}

var (
	markdownLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	markdownHeading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	anchorLeavesOut = regexp.MustCompile("[^\\p{L}\\p{N}_ -]")
)

// anchor is what a heading is linked by.
func anchor(heading string) string {
	return strings.ReplaceAll(anchorLeavesOut.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// pages answers the Markdown files of the tree that a reader is meant to find.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[filepath.ToSlash(name)] = string(text)
		}
	}
	return texts
}

// TestLinks: what a page links to is there, the heading included.
func TestLinks(t *testing.T) {
	texts := pages(t)
	for name, text := range texts {
		for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, heading, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
				continue
			}
			if heading != "" && !slices.ContainsFunc(headings(texts[target]), func(h string) bool { return anchor(h) == heading }) {
				t.Errorf("%s links to %s, and there is no such heading", name, m[1])
			}
		}
	}
}

func headings(text string) (all []string) {
	for _, m := range markdownHeading.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestEveryDecisionIsListed: the table of contents of docs/decisions has all of them.
func TestEveryDecisionIsListed(t *testing.T) {
	texts := pages(t)
	const contents = "../docs/decisions/README.md"
	for name, text := range texts {
		if path.Dir(name) != path.Dir(contents) || name == contents {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(text, -1) {
			if link := "(" + path.Base(name) + "#" + anchor(m[1]) + ")"; !strings.Contains(texts[contents], link) {
				t.Errorf("%s does not link to %s", contents, link)
			}
		}
	}
}

// namedByOthers are words with capitals inside that package comments take from elsewhere.
var namedByOthers = []string{"CoreDNS", "WebSocket", "managedFields", "TestWatch", "tools.go"}

// TestDocNamesWhatIsThere: a file, a function or a type that the doc comment of a package names is somewhere in the tree.
func TestDocNamesWhatIsThere(t *testing.T) {
	files := tree(t)
	known := map[string]bool{}
	for _, w := range namedByOthers {
		known[w] = true
	}
	for _, f := range files {
		known[path.Base(f.path)] = true
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				known[n.Name] = true
				known[strings.TrimPrefix(n.Name, "Benchmark")] = true // as -bench has it
			case *ast.BasicLit:
				for _, w := range docWord.FindAllString(n.Value, -1) {
					known[w] = true
				}
			}
			return true
		})
	}
	for _, f := range files {
		if f.ast.Doc == nil {
			continue
		}
		for _, w := range docWord.FindAllString(f.ast.Doc.Text(), -1) {
			if isName(w) && !known[w] && !known[strings.TrimSuffix(w, "s")] {
				t.Errorf("%s: there is no %s", f.path, w)
			}
		}
	}
}

// docWord is a file of Go, or a word.
var docWord = regexp.MustCompile(`[A-Za-z_0-9*]+\.go\b|[A-Za-z_][A-Za-z_0-9]+`)

// isName says whether a word is one of code: a file, or with a capital behind a small letter.
func isName(w string) bool {
	if strings.HasSuffix(w, ".go") {
		return !strings.Contains(w, "*")
	}
	if len(w) <= 2 {
		return false
	}
	small := false
	for _, r := range w {
		if small && unicode.IsUpper(r) {
			return true
		}
		small = unicode.IsLower(r)
	}
	return false
}
