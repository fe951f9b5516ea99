package peers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const mainModule = "module github.com/kubeshim/shim\n"

// Path returns the absolute path of the named peer, building it first when it
// is missing or out of date. It fails t when it cannot; it never skips.
// Names: etcd, etcdctl, etcdutl, etcd-3.5, etcd-3.6, kube-apiserver,
// kube-controller-manager, kube-scheduler, kubectl, kubeadm, kindconfig, kwok,
// kine.
func Path(t testing.TB, name string) string {
	t.Helper()
	path, err := Build(name)
	if err != nil {
		t.Fatalf("peer %s: %v", name, err)
	}
	return path
}

// Build is Path for callers that are not tests. A build takes minutes the
// first time (Kubernetes: about five on two cores) and nothing afterwards.
func Build(name string) (string, error) {
	p, ok := programs[name]
	if !ok {
		return "", fmt.Errorf("no such peer: %q", name)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "test", "peers", p.family)
	want, err := digest(dir, p)
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, name)
	if isCurrent(out, want) {
		return out, nil
	}
	unlock, err := lock(filepath.Join(cache, p.family+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isCurrent(out, want) { // somebody else built it while we waited
		return out, nil
	}
	return out, build(dir, p, out, want)
}

// EtcdctlPatience is for the environment of an etcdctl without the flags of that name: its own time-outs, 5 s for
// a command and 2 s for a connection, strike on a busy machine.
var EtcdctlPatience = []string{"ETCDCTL_COMMAND_TIMEOUT=1m", "ETCDCTL_DIAL_TIMEOUT=1m"}

// Shim builds ./cmd/shim of the main module and returns the binary's path.
// It is built anew in every call: the go command knows what has changed.
func Shim(t testing.TB) string {
	t.Helper()
	path, err := BuildShim()
	if err != nil {
		t.Fatalf("build shim: %v", err)
	}
	return path
}

// BuildShim is Shim for callers that are not tests.
func BuildShim() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir(root)
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "shim.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	out := filepath.Join(cache, "shim")
	return out, goBuild(root, program{pkg: "./cmd/shim"}, out)
}

// ModuleDir returns the folder in the module cache of a module that a family
// requires, for the files that come with it, for instance
// ModuleDir(t, "kwok", "sigs.k8s.io/kwok").
func ModuleDir(t testing.TB, family, module string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "test", "peers", family)
	if out, err := command(dir, "go", "mod", "download", module).CombinedOutput(); err != nil {
		t.Fatalf("download %s: %v\n%s", module, err, out)
	}
	out, err := command(dir, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("find module %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

// Root returns the folder of the main module's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte(mainModule)) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod of the main module at or above %s", dir)
		}
	}
}

func cacheDir(root string) (string, error) {
	dir := filepath.Join(root, ".cache", "peers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create peer cache: %w", err)
	}
	return dir, nil
}

// digest covers everything that decides the binary and that we control.
func digest(dir string, p program) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s%s\ncgo=%t\n", p.pkg, strip, p.ldflags, p.cgo)
	if p.static {
		fmt.Fprintln(h, "static")
	}
	files := []string{"go.mod", "go.sum"}
	if p.pkg == "." { // the main package is ours
		files = append(files, "main.go")
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("read nested module: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", name, len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func isCurrent(out, want string) bool {
	if _, err := os.Stat(out); err != nil {
		return false
	}
	have, err := os.ReadFile(out + ".stamp")
	return err == nil && strings.TrimSpace(string(have)) == want
}

// lock takes an exclusive flock, waiting for it as long as it needs.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func build(dir string, p program, out, stamp string) error {
	if err := os.Remove(out + ".stamp"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stamp: %w", err)
	}
	if err := goBuild(dir, p, out); err != nil {
		return err
	}
	if err := os.WriteFile(out+".stamp", []byte(stamp+"\n"), 0o644); err != nil {
		return fmt.Errorf("write stamp: %w", err)
	}
	return nil
}

// goBuild builds into a temporary file and renames it, so that a process that
// runs the old binary keeps it and nobody sees half of the new one.
func goBuild(dir string, p program, out string) error {
	tmp := fmt.Sprintf("%s.%d.tmp", out, os.Getpid())
	defer os.Remove(tmp)
	cmd := command(dir, "nice", "-n", "10", "go", "build", "-p", "2", "-trimpath",
		"-ldflags="+strip+p.ldflags, "-o", tmp, p.pkg)
	switch {
	case p.cgo:
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	case p.static:
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", p.pkg, err, msg)
	}
	if err := os.Rename(tmp, out); err != nil {
		return fmt.Errorf("install %s: %w", out, err)
	}
	return nil
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return cmd
}
