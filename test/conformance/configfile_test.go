package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeshim/shim/test/internal/peers"
)

// settingsFile lists the settings of etcd's configuration file with their types.
const settingsFile = "../../cmd/shim/testdata/etcd-3.7.3-settings.txt"

// wrongValue is one that a setting of the type does not take.
func wrongValue(typ string) string {
	if typ == "string" || strings.HasPrefix(typ, "[]") || strings.Contains(typ, ".") && typ != "time.Duration" || typ == "securityConfig" {
		return "5"
	}
	return "x"
}

// refusedFiles are other contents that etcd refuses.
var refusedFiles = []string{
	"name: [",
	"peer-transport-security: x",
	"peer-transport-security: {cert-file: 5}",
	"client-transport-security: {allowed-cn: 5}",
	"feature-gates: Foo=true",
	"feature-gates: InitialCorruptCheck",
	"logger: capnslog",
	"logger: glog",
	"log-format: xml",
	"log-outputs: [/nonexistent/x/y.log]",
	"log-outputs: [\"http://x/y\"]",
	"log-outputs: [default, stderr]",
	"log-outputs: [systemd/journal, stderr]",
	"enable-log-rotation: true",
	"{enable-log-rotation: true, log-outputs: [/tmp/a, /tmp/b]}",
	`{enable-log-rotation: true, log-outputs: [/tmp/a], log-rotation-config-json: "{"}`,
	`{enable-log-rotation: true, log-outputs: [/tmp/a], log-rotation-config-json: "{\"maxsize\": \"a\"}"}`,
	"{enable-distributed-tracing: true, distributed-tracing-sampling-rate: -1}",
	"{enable-distributed-tracing: true, distributed-tracing-sampling-rate: 1000001}",
	"heartbeat-interval: 0",
	"election-timeout: 60000",
	"initial-cluster-state: old",
	"auto-compaction-mode: never",
	"compact-hash-check-time: 0",
	"tls-min-version: TLS1.1",
	"{tls-min-version: TLS1.3, tls-max-version: TLS1.2}",
	"listen-client-urls: http://example.com:1",
	"{discovery-srv: a, initial-cluster: b=http://c:1}",
}

// typeName is the last thing in an error about a wrong type, whose package and
// case are the program's own.
var typeName = regexp.MustCompile(`of type [\w.]*?\w+$`)

// refusalTimeout ends a server that takes what it should not.
const refusalTimeout = time.Minute

const notRefused = "is not refused"

// refusal is what a server says when it does not start from a configuration file.
func refusal(t *testing.T, binary, content string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "etcd.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), refusalTimeout) // for one that is not refused
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--config-file", file)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 {
		return fmt.Sprint(notRefused, ": ", err)
	}
	for line := range strings.Lines(string(out)) {
		var l struct{ Msg, Error string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "failed to verify flags" {
			return typeName.ReplaceAllStringFunc(l.Error, func(s string) string { return strings.ToLower(s[strings.LastIndexAny(s, " .")+1:]) })
		}
	}
	return string(out)
}

// TestConfigFileErrors: what is wrong in a configuration file is told as etcd tells it.
func TestConfigFileErrors(t *testing.T) {
	settings, err := os.ReadFile(settingsFile)
	if err != nil {
		t.Fatal(err)
	}
	contents := refusedFiles
	for s := bufio.NewScanner(bytes.NewReader(settings)); s.Scan(); {
		if name, typ, ok := strings.Cut(s.Text(), " "); ok && name != "#" {
			contents = append(contents, name+": "+wrongValue(typ))
		}
	}
	if len(contents) < 90 {
		t.Fatalf("only %d files", len(contents))
	}
	etcd, shim := peers.Path(t, "etcd"), shimPath(t)
	places := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, content := range contents {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if e, s := refusal(t, etcd, content), refusal(t, shim, content); e != s || strings.HasPrefix(e, notRefused) {
				t.Errorf("%s\netcd: %s\nshim: %s", content, e, s)
			}
		})
	}
	wg.Wait()
}
