package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A run that is short of a test, or skips one, must not look green.
func TestProblems(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"expected.txt": "# all\np TestA\np TestB\np TestC\n",
		"skips.txt":    "p TestB/slow upstream says so\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"TestA pass", "TestB pass", "TestB/slow skip", "TestC pass"}
	for _, c := range []struct {
		name, from, to string // one of all, replaced
		partial        bool
		want           string
	}{
		{name: "green"},
		{name: "failed", from: "TestA pass", to: "TestA fail", want: "failed: p TestA"},
		{name: "skipped", from: "TestA pass", to: "TestA skip", want: "skipped without a reason in skips.txt: p TestA"},
		{name: "hung", from: "TestA pass", to: "TestA run", want: "never ended: p TestA"},
		{name: "missing", from: "TestC pass", to: "TestB pass", want: "did not run: p TestC"},
		{name: "missing from a part", from: "TestC pass", to: "TestB pass", partial: true},
		{name: "new", from: "TestA pass", to: "TestA pass,TestD pass", want: "not in expected.txt: p TestD"},
		{name: "no skip", from: "TestB/slow skip", to: "TestB/slow pass", want: "listed in skips.txt, but did not skip: p TestB/slow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReport(false)
			lines := slices.Clone(all)
			if i := slices.Index(lines, c.from); i >= 0 {
				lines = slices.Replace(lines, i, i+1, strings.Split(c.to, ",")...)
			}
			for _, line := range lines {
				name, action, _ := strings.Cut(line, " ")
				r.add(fmt.Appendf(nil, `{"Action":"run","Package":"p","Test":%q}`, name))
				r.add(fmt.Appendf(nil, `{"Action":%q,"Package":"p","Test":%q}`, action, name))
			}
			have, err := r.problems(dir, !c.partial)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(have, "; "); got != c.want {
				t.Errorf("problems: %q, want %q", got, c.want)
			}
		})
	}
}
