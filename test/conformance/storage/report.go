package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// event is one line of go test -json (see go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output, instead of Package
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// testID names one test or subtest; with an empty name, the package.
type testID struct{ pkg, name string }

func (id testID) String() string {
	if id.name == "" {
		return id.pkg
	}
	return id.pkg + " " + id.name
}

func (id testID) isTop() bool { return id.name != "" && !strings.Contains(id.name, "/") }

// report counts what go test says and keeps the output of what fails.
type report struct {
	verbose bool
	outcome map[testID]string // pass, fail or skip; started while it runs
	output  map[testID]*bytes.Buffer
}

func newReport(verbose bool) *report {
	return &report{verbose: verbose, outcome: map[testID]string{}, output: map[testID]*bytes.Buffer{}}
}

func (r *report) add(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		os.Stdout.Write(line)
		return
	}
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output", "build-fail":
		fmt.Print(e.Output)
	case "run":
		r.outcome[id] = "started"
	case "output":
		if r.output[id] == nil {
			r.output[id] = &bytes.Buffer{}
		}
		r.output[id].WriteString(e.Output)
		if r.verbose {
			fmt.Print(e.Output)
		}
	case "pass", "fail", "skip":
		r.finish(id, e)
	}
}

func (r *report) finish(id testID, e event) {
	if id.name != "" || e.Action == "fail" {
		r.outcome[id] = e.Action
	}
	if e.Action == "fail" && !r.verbose && r.output[id] != nil {
		os.Stdout.Write(r.output[id].Bytes())
	}
	if id.name == "" && e.Action != "skip" {
		fmt.Printf("%s\t%s\t%.1fs\n", e.Action, e.Package, e.Elapsed)
	}
	delete(r.output, id)
}

func (r *report) failed() int {
	n := 0
	for _, o := range r.outcome {
		if o != "pass" && o != "skip" {
			n++
		}
	}
	return n
}

func (r *report) sorted(keep func(testID) bool) []testID {
	var ids []testID
	for id := range r.outcome {
		if keep(id) {
			ids = append(ids, id)
		}
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i].String() < ids[j].String() })
	return ids
}

// expectation is the text of expected.txt for what ran.
func (r *report) expectation() []byte {
	var b bytes.Buffer
	b.WriteString("# Every top-level test of the suite: package, test. Written by -update.\n")
	for _, id := range r.sorted(testID.isTop) {
		fmt.Fprintln(&b, id)
	}
	return b.Bytes()
}

// problems says everything that is wrong with the run. The lists are compared
// only when the whole suite ran.
func (r *report) problems(dir string, isWhole bool) ([]string, error) {
	expected, err := readList(filepath.Join(dir, "expected.txt"))
	if err != nil {
		return nil, err
	}
	skips, err := readList(filepath.Join(dir, "skips.txt"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, id := range r.sorted(func(testID) bool { return true }) {
		switch o := r.outcome[id]; {
		case o == "fail":
			all = append(all, fmt.Sprintf("failed: %s", id))
		case o == "started":
			all = append(all, fmt.Sprintf("never ended: %s", id))
		case o == "skip" && skips[id] == "":
			all = append(all, fmt.Sprintf("skipped without a reason in skips.txt: %s", id))
		}
		if isWhole && id.isTop() && !has(expected, id) {
			all = append(all, fmt.Sprintf("not in expected.txt: %s", id))
		}
	}
	if !isWhole {
		return all, nil
	}
	for id := range expected {
		if r.outcome[id] == "" {
			all = append(all, fmt.Sprintf("did not run: %s", id))
		}
	}
	for id := range skips {
		if r.outcome[id] != "skip" {
			all = append(all, fmt.Sprintf("listed in skips.txt, but did not skip: %s", id))
		}
	}
	sort.Strings(all)
	return all, nil
}

// closing is the last line of the output.
func (r *report) closing(server string, problems int) string {
	top, sub := map[string]int{}, map[string]int{}
	for id, o := range r.outcome {
		switch {
		case id.isTop():
			top[o]++
		case id.name != "":
			sub[o]++
		}
	}
	verdict := "PASS"
	if problems > 0 {
		verdict = "FAIL"
	}
	return fmt.Sprintf("%s: storage suite on %s: %d of %d tests passed, %d failed, %d skipped; subtests: %d passed, %d failed, %d skipped; %d problems",
		verdict, server, top["pass"], sum(top), top["fail"]+top["started"], top["skip"],
		sub["pass"], sub["fail"]+sub["started"], sub["skip"], problems)
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

func has(m map[testID]string, id testID) bool {
	_, ok := m[id]
	return ok
}

// readList reads lines of package, test and a free text; # starts a comment.
func readList(path string) (map[testID]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	list := map[testID]string{}
	for n, line := range strings.Split(string(b), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, " ", 3)
		if len(f) < 2 {
			return nil, fmt.Errorf("%s:%d: want a package and a test, have %q", path, n+1, line)
		}
		text := ""
		if len(f) == 3 {
			text = f[2]
		}
		list[testID{f[0], f[1]}] = text
	}
	return list, nil
}
