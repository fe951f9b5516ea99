package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubeshim/shim/test/internal/peers"
)

const apiserver = "k8s.io/apiserver"

// suite is every package of upstream's that tests through the server.
var suite = []string{
	"./pkg/storage/etcd3/...",
	"./pkg/storage/cacher/...",
	"./pkg/storage/storagebackend/...",
	"./pkg/registry/generic/registry/...",
	"./pkg/reconcilers/...",
}

func main() {
	server := flag.String("server", "shim", "shim (built now), etcd, or the path of a binary")
	run := flag.String("run", "", "only the tests that match, as of go test; the list of expected tests is not compared then")
	update := flag.Bool("update", false, "write expected.txt instead of comparing with it")
	verbose := flag.Bool("v", false, "print the output of passing tests too")
	flag.Parse()
	ok, err := runSuite(options{
		server: *server, run: *run, packages: flag.Args(), update: *update, verbose: *verbose,
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "storage: %v\n", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

type options struct {
	server   string
	run      string
	packages []string // the whole suite when empty
	update   bool
	verbose  bool
}

func runSuite(o options) (ok bool, err error) {
	root, err := peers.Root()
	if err != nil {
		return false, err
	}
	binary, err := serverPath(o.server)
	if err != nil {
		return false, err
	}
	layout, err := prepare(root)
	if err != nil {
		return false, err
	}
	packages := o.packages
	if len(packages) == 0 {
		packages = suite
	}
	rep := newReport(o.verbose)
	if err := goTest(layout, binary, o.run, packages, rep); err != nil {
		return false, err
	}
	here := filepath.Join(root, "test", "conformance", "storage")
	isWhole := o.run == "" && len(o.packages) == 0
	if isWhole && o.update {
		if err := os.WriteFile(filepath.Join(here, "expected.txt"), rep.expectation(), 0o644); err != nil {
			return false, fmt.Errorf("write expected tests: %w", err)
		}
	}
	problems, err := rep.problems(here, isWhole)
	if err != nil {
		return false, err
	}
	for _, p := range problems {
		fmt.Println("conformance:", p)
	}
	fmt.Println(rep.closing(o.server, len(problems)))
	return len(problems) == 0, nil
}

func serverPath(name string) (string, error) {
	switch name {
	case "shim":
		return peers.BuildShim()
	case "etcd":
		return peers.Build("etcd")
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find server: %w", err)
	}
	return path, nil
}

// layout is where the pieces of one run lie.
type layout struct {
	source   string // the apiserver module, outside of the module cache
	upstream string // our nested module
	modfile  string
	overlay  string
}

// prepare links the module and writes the two files that go test is given.
func prepare(root string) (layout, error) {
	work := filepath.Join(root, ".cache", "conformance")
	l := layout{
		source:   filepath.Join(work, "apiserver"),
		upstream: filepath.Join(root, "test", "conformance", "storage", "upstream"),
		modfile:  filepath.Join(work, "go.mod"),
		overlay:  filepath.Join(work, "overlay.json"),
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return l, fmt.Errorf("create work folder: %w", err)
	}
	if _, err := l.goCommand("mod", "download", apiserver); err != nil {
		return l, err
	}
	dir, err := l.goCommand("list", "-m", "-f", "{{.Dir}}", apiserver)
	if err != nil {
		return l, err
	}
	if err := os.Remove(l.source); err != nil && !errors.Is(err, os.ErrNotExist) {
		return l, fmt.Errorf("remove old link: %w", err)
	}
	if err := os.Symlink(strings.TrimSpace(string(dir)), l.source); err != nil {
		return l, fmt.Errorf("link %s: %w", apiserver, err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(l.upstream, name))
		if err != nil {
			return l, fmt.Errorf("read nested module: %w", err)
		}
		if err := os.WriteFile(filepath.Join(work, name), b, 0o644); err != nil {
			return l, fmt.Errorf("copy nested module: %w", err)
		}
	}
	if _, err := l.goCommand("mod", "edit", "-replace", apiserver+"="+l.source, l.modfile); err != nil {
		return l, err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(l.source, "pkg/storage/etcd3/testserver/test_server.go"): filepath.Join(l.upstream, "testserver/test_server.go"),
	}})
	if err != nil {
		return l, err
	}
	return l, os.WriteFile(l.overlay, overlay, 0o644)
}

// command runs the go command in the nested module.
func (l layout) command(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = l.upstream
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return cmd
}

func (l layout) goCommand(args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := l.command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// goTest runs the packages and hands every event to rep. That tests failed is
// not an error: rep knows. That nothing ran at all is one.
func goTest(l layout, binary, run string, packages []string, rep *report) error {
	args := []string{"test", "-modfile=" + l.modfile, "-overlay=" + l.overlay, "-vet=off",
		"-count=1", "-json", "-p=2", "-timeout=15m"}
	if run != "" {
		args = append(args, "-run="+run)
	}
	for _, p := range packages {
		args = append(args, apiserver+strings.TrimPrefix(p, "."))
	}
	cmd := l.command(args...)
	cmd.Env = append(cmd.Env, "SHIM_CONFORMANCE_SERVER="+binary)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	r := bufio.NewReader(stdout)
	for {
		line, readErr := r.ReadBytes('\n')
		if len(line) > 0 {
			rep.add(line)
		}
		if readErr != nil {
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run go test: %w", err)
	}
	if err != nil && rep.failed() == 0 {
		return fmt.Errorf("go test failed, but no test did: %w", err)
	}
	return nil
}
