package conformance

import (
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

var (
	only   = flag.String("server", "", "run only against etcd or shim")
	binary = flag.String("shim", "", "the binary to test as shim, for instance one built with -race, instead of one built now")
)

// scriptsMin keeps the suite from shrinking unnoticed.
const scriptsMin = 40

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < scriptsMin {
		t.Fatalf("found %d scripts, want at least %d", len(files), scriptsMin)
	}
	etcdutl := peers.Path(t, "etcdutl")
	isRewrite := flag.Lookup("rewrite").Value.String() == "true"
	binaries := map[string]func(testing.TB) string{
		"etcd": func(t testing.TB) string { return peers.Path(t, "etcd") },
		"shim": shimPath,
	}
	for _, name := range []string{"etcd", "shim"} {
		if isRewrite && name != "etcd" || *only != "" && *only != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			path := binaries[name](t)
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
					t.Parallel()
					runScript(t, file, script.Config{Binary: path, Etcdutl: etcdutl, TempDir: t.TempDir()}, isRewrite)
				})
			}
		})
	}
}

func shimPath(t testing.TB) string {
	if *binary != "" {
		return *binary
	}
	return peers.Shim(t)
}

// runScript reports every difference of a script, not only the first.
func runScript(t *testing.T, file string, cfg script.Config, isRewrite bool) {
	s := script.New(cfg)
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
		have, err := s.Run(d)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		// datadriven writes an empty output with an end of line of its own.
		if isRewrite || strings.TrimSpace(have) == strings.TrimSpace(d.Expected) {
			if isRewrite {
				return have
			}
			return d.Expected
		}
		t.Errorf("%s: %s\n%s\nrecorded from etcd:\n%s\nthis server:\n%s", d.Pos, d.Cmd, d.Input, d.Expected, have)
		return d.Expected
	})
}
