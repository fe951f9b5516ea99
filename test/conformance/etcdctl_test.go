package conformance

import (
	"bytes"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

// authCommands are what an operator types, every command of etcdctl's about users, roles and auth among it. What follows < is typed in.
var authCommands = []string{
	"auth status",
	"auth enable",
	"user list",
	"user add root:secret",
	"user add root:secret",
	"user add alice --new-user-password=a",
	"user add bob --no-password",
	"user add carol --interactive=false < c",
	"user add :x",
	"user list",
	"user list -w json",
	"user get root",
	"user get none",
	"role add root",
	"role add rw",
	"role add rw",
	"role add reads",
	"role add",
	"role list",
	"role grant-permission rw readwrite a c",
	"role grant-permission rw readwrite --prefix=true /registry/",
	"role grant-permission reads read --from-key=true x",
	"role grant-permission reads read k",
	"role grant-permission reads write w",
	"role grant-permission reads read a a",
	"role grant-permission reads nonsense a",
	"role grant-permission none read a",
	"role get rw",
	"role get reads",
	"role get reads -w json",
	"role get root",
	"role get none",
	"role revoke-permission reads k",
	"role revoke-permission reads k",
	"role revoke-permission reads --from-key=true x",
	"role revoke-permission rw --prefix=true /registry/",
	"role get reads",
	"user grant-role root root",
	"user grant-role alice rw",
	"user grant-role alice reads",
	"user grant-role alice none",
	"user grant-role none rw",
	"user get alice",
	"user get alice --detail",
	"user revoke-role alice reads",
	"user revoke-role alice reads",
	"user passwd alice --interactive=false < a2",
	"user passwd none --interactive=false < a2",
	"auth enable",
	"auth status",
	"put a 1",
	"--user alice:a put a 1",
	"--user alice:a2 put a 1",
	"--user alice --password a2 get a",
	"--user alice:a2 put z 1",
	"--user alice:a2 get a --prefix",
	"--user alice:a2 get a c",
	"--user alice:a2 get a d",
	"--user alice:a2 del a --prev-kv",
	"--user alice:a2 lease grant 100",
	"--user alice:a2 user list",
	"--user alice:a2 user get alice",
	"--user alice:a2 role get rw",
	"--user alice:a2 role get reads",
	"--user alice:a2 auth status",
	"--user alice:a2 auth disable",
	"--user alice:a2 compact 2",
	"--user alice:a2 defrag",
	"--user alice:a2 alarm disarm",
	"--user alice:a2 member remove 1",
	"--user alice:a2 move-leader 1",
	"--user none:x get a",
	"--user bob:x get a",
	"--user root:secret user list",
	"--user root:secret role list",
	"--user root:secret user delete alice",
	"--user root:secret user delete alice",
	"--user root:secret user delete root",
	"--user root:secret role delete rw",
	"--user root:secret role delete rw",
	"--user root:secret role delete root",
	"--user root:secret user revoke-role root root",
	"--user root:secret alarm list",
	"--user root:secret auth disable",
	"auth status",
	"--user root:secret user list",
	"auth disable",
}

// mask hides what two servers differ in.
var mask = regexp.MustCompile(`"(cluster_id|member_id|raft_term)":\d+|"ts":"[^"]*"|"caller":"[^"]*"|"target":"[^"]*"|127\.0\.0\.1:\d+|lease [0-9a-f]{16}|took [0-9.]+[mµ]?s`)

// TestEtcdctl types the same into etcdctl before etcd and before shim: output, errors and exit codes are equal.
func TestEtcdctl(t *testing.T) {
	etcdctl := peers.Path(t, "etcdctl")
	transcript := func(binary string) []string {
		s, err := script.Start(binary, t.TempDir(), []string{"--bcrypt-cost=4"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		var all []string
		for _, line := range authCommands {
			words, input, _ := strings.Cut(line, " < ")
			cmd := exec.Command(etcdctl, append([]string{"--endpoints=" + s.ClientAddress()}, strings.Fields(words)...)...)
			var out bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input+"\n"), &out, &out
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			all = append(all, mask.ReplaceAllString(out.String(), "#")+cmd.ProcessState.String())
		}
		return all
	}
	want, have := transcript(peers.Path(t, "etcd")), transcript(shimPath(t))
	for i, line := range authCommands {
		if want[i] != have[i] {
			t.Errorf("etcdctl %s\netcd:\n%s\nshim:\n%s", line, want[i], have[i])
		}
		if testing.Verbose() {
			t.Logf("etcdctl %s\n%s", line, want[i])
		}
	}
}
