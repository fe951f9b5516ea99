package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEtcdPrograms(t *testing.T) {
	for name, want := range map[string]string{
		"etcd":    "etcd Version: 3.7.3",
		"etcdctl": "etcdctl version: 3.7.3",
		"etcdutl": "etcdutl version: 3.7.3",
	} {
		args := []string{"version"}
		if name == "etcd" {
			args = []string{"--version"}
		}
		out, err := exec.Command(Path(t, name), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if !strings.Contains(string(out), want) {
			t.Errorf("%s says %q, want %q in it", name, out, want)
		}
	}
}

func TestUnknownPeer(t *testing.T) {
	if path, err := Build("no-such-program"); err == nil {
		t.Fatalf("built an unknown peer at %s", path)
	}
}

// The stamp is what makes a change of the nested module rebuild.
func TestDigestCoversModule(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	note := func(what string, p program) {
		d, err := digest(dir, p)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[d]; ok {
			t.Errorf("%s has the digest of %s", what, before)
		}
		seen[d] = what
	}
	write("go.mod", "a")
	write("go.sum", "b")
	note("first", program{pkg: "p"})
	note("other package", program{pkg: "q"})
	note("other flags", program{pkg: "p", ldflags: " -X a=b"})
	write("go.mod", "aa")
	note("other go.mod", program{pkg: "p"})
	write("go.sum", "bb")
	note("other go.sum", program{pkg: "p"})
}

func TestIsCurrent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "program")
	if isCurrent(out, "x") {
		t.Fatal("a missing binary is current")
	}
	for name, text := range map[string]string{out: "binary", out + ".stamp": "x\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !isCurrent(out, "x") {
		t.Error("an unchanged binary is not current")
	}
	if isCurrent(out, "y") {
		t.Error("a binary of another digest is current")
	}
}
