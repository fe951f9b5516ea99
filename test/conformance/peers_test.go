package conformance

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

// content is what the servers of these tests are filled with.
var content = []struct{ cmd, input string }{
	{"grant", "ID:7 TTL:5000"},
	{"put", "key:\"a\" value:\"1\"\nkey:\"a\" value:\"2\"\nkey:\"b\" value:\"leased\" lease:7\nkey:\"c\" value:\"1\""},
	{"txn", `success{request_put{key:"d" value:"1"}} success{request_delete_range{key:"c"}} success{request_put{key:"e" value:"\x00\xff"}}`},
	{"compact", "revision:4 physical:true"},
	{"put", "key:\"/registry/pods/d/p\" value:\"pod\"\nkey:\"a\" value:\"3\""},
	{"delete", `key:"d"`},
}

// question is asked of a server to see that it holds the content.
var questions = []struct{ cmd, input string }{
	{"range", `key:"\x00" range_end:"\x00"`},
	{"range", `key:"\x00" range_end:"\x00" revision:5`},
	{"range", `key:"\x00" range_end:"\x00" revision:3`},
	{"ttl", "ID:7 keys:true"},
	{"hashkv", ""},
	{"put", `key:"a" value:"4" prev_kv:true`},
	{"hashkv", ""},
}

func start(t *testing.T, binary string, dir string) *script.Session {
	t.Helper()
	s := script.New(script.Config{Binary: binary, Etcdutl: peers.Path(t, "etcdutl"), TempDir: dir})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

func run(t *testing.T, s *script.Session, cmd, input string) string {
	t.Helper()
	out, err := s.Run(&datadriven.TestData{Cmd: cmd, Input: input})
	if err != nil {
		t.Fatalf("%s %s: %v", cmd, input, err)
	}
	return out
}

// TestRestoreIntoEtcd takes a backup of shim, restores it with etcdutl, and
// has the real etcd serve it: nothing is locked in.
func TestRestoreIntoEtcd(t *testing.T) {
	from := start(t, shimPath(t), t.TempDir())
	for _, c := range content {
		run(t, from, c.cmd, c.input)
	}
	dir := t.TempDir()
	backup := filepath.Join(dir, "backup.db")
	if err := from.Backup(backup); err != nil {
		t.Fatal(err)
	}
	restore := exec.Command(peers.Path(t, "etcdutl"), "snapshot", "restore", backup, "--data-dir", filepath.Join(dir, "data"))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	to := start(t, peers.Path(t, "etcd"), dir)
	for _, q := range questions {
		if have, want := run(t, to, q.cmd, q.input), run(t, from, q.cmd, q.input); have != want {
			t.Errorf("%s %s\nshim:\n%s\netcd, restored from it:\n%s", q.cmd, q.input, want, have)
		}
	}
}

// ids are what etcd computes from the peer URLs and the cluster token.
var ids = regexp.MustCompile(`"(?:cluster_id|member_id)":\d+`)

// TestIDs starts both servers with the same flags, one after the other.
func TestIDs(t *testing.T) {
	var seen [2][]byte
	flags := []string{"--listen-peer-urls=http://127.0.0.1:0", "--initial-cluster-token=tkn"}
	for i, binary := range []string{peers.Path(t, "etcd"), shimPath(t)} {
		s, err := script.Start(binary, t.TempDir(), append(flags,
			"--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380"))
		if err != nil {
			t.Fatal(err)
		}
		ctl := exec.CommandContext(context.Background(), peers.Path(t, "etcdctl"), "--endpoints", s.ClientAddress(), "-w", "json", "get", "a")
		out, err := ctl.CombinedOutput()
		if err != nil {
			t.Errorf("etcdctl: %v\n%s", err, out)
		}
		seen[i] = bytes.Join(ids.FindAll(out, -1), []byte(" "))
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(seen[0], seen[1]) || strings.Count(string(seen[0]), "_id") != 2 {
		t.Errorf("etcd has %s\nshim has %s", seen[0], seen[1])
	}
}
