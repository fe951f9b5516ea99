package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// mask hides what two servers differ in: IDs, terms, indices, sizes, times, addresses and folders; and where etcdctl itself was when it
// gave up, and how far at which time.
var mask = regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|lease|dbSize\w*|raft\w+)":\d+|"(ClusterID|MemberID|Raft\w+|DBSize\w*|Took|took)" ?: ?"?[\w.]+"?` +
	`|"(ts|caller|target|took)":"[^"]*"|127\.0\.0\.1:\d+|\b[0-9a-f]{11,16}\b|\b\d{13,20}\b|(took|in|:) [0-9.]+[mµn]?s\b|\d+\.\d+[mµn]?s\b|[0-9.]+ [kMG]?i?B\b|\d+%` +
	`|remaining\(\d+s\)|"ttl":\d+|/tmp/\S+|(true|false)(, | +[|│] +)(true|false)(, | +[|│] +)\d+(, | +[|│] +)\d+(, | +[|│] +)\d+|(?s:\ngoroutine \d+ .*)|(?s:\d+ / \d+ .*p/s)`)

// padding is as wide as what was masked.
var padding = regexp.MustCompile(` +|-{2,}|─{2,}`)

// word is a part of an answer whose order is that of the members' IDs.
var word = regexp.MustCompile(`[^\s,"()\[\]]+`)

// learned are the IDs that a server made and later lines use.
var learned = map[string]*regexp.Regexp{
	"$lease":  regexp.MustCompile(`lease ([0-9a-f]+) granted`),
	"$added":  regexp.MustCompile(`Member +([0-9a-f]+) added`),
	"$member": regexp.MustCompile(`(?m)^([0-9a-f]+), started`),
}

// lineMax bounds one command: it fails the test instead of hanging it.
const lineMax = 2 * time.Minute

// operator types into etcdctl, before one server.
type operator struct {
	t          *testing.T
	etcdctl    string
	endpoint   string
	vars       map[string]string
	background []*exec.Cmd
}

// output is what a command writes; has is closed when that has the text.
type output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	text string
	has  chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(b)
	if o.text != "" && strings.Contains(o.all.String(), o.text) {
		o.text = ""
		close(o.has)
	}
	return len(b), nil
}

// split takes a line apart; see dialogues.
func split(line string) (words, text, input string, background bool) {
	words, input, _ = strings.Cut(line, " < ")
	words, text, _ = strings.Cut(words, " > ")
	words, background = strings.CutPrefix(words, "& ")
	return words, text, input, background
}

// formats are the lines that a line stands for.
func formats(line string) (all []string) {
	rest, each := strings.CutPrefix(line, "-w * ")
	if !each {
		return []string{line}
	}
	for _, format := range []string{"simple", "json", "table", "fields"} {
		all = append(all, "-w "+format+" "+rest)
	}
	return all
}

// say runs a line and answers what is to be compared.
func (o *operator) say(ctx context.Context, line string) string {
	words, text, input, background := split(line)
	for name, value := range o.vars {
		words = strings.ReplaceAll(words, name, value)
	}
	ctx, cancel := context.WithTimeout(ctx, lineMax)
	cmd := exec.CommandContext(ctx, o.etcdctl, strings.Fields(words)...)
	cmd.Env = slices.DeleteFunc(append(os.Environ(), "ETCDCTL_ENDPOINTS="+o.endpoint), func(v string) bool { return saidByFlag(words, v) })
	if background {
		o.t.Cleanup(cancel)
		o.background = append(o.background, cmd)
		if err := cmd.Start(); err != nil {
			o.t.Fatal(err)
		}
		return ""
	}
	defer cancel()
	out, errs := &output{text: text, has: make(chan struct{})}, &output{text: text, has: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, errs
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	_, _ = io.WriteString(in, input+"\n") // the command may end without reading
	if text == "" {
		in.Close()
	} else {
		select {
		case <-out.has:
		case <-errs.has:
		case <-ctx.Done():
			o.t.Errorf("etcdctl %s: no %q within %v", line, text, lineMax)
		}
		_ = cmd.Process.Signal(os.Interrupt)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		o.t.Fatalf("etcdctl %s: %v", line, err)
	}
	for name, re := range learned {
		if m := re.FindStringSubmatch(out.all.String()); m != nil {
			o.vars[name] = m[1]
		}
	}
	said := masked(out.all.String())
	if strings.Contains(words, "member ") || strings.Contains(words, " --keys") {
		said = byWord(said) // both come out of a map in etcd
	}
	return said + "stderr: " + masked(errs.all.String()) + cmd.ProcessState.String()
}

// saidByFlag tells whether a line has a flag for what a variable of the environment says: etcdctl refuses both.
func saidByFlag(words, variable string) bool {
	name, ok := strings.CutPrefix(variable, "ETCDCTL_")
	name, _, _ = strings.Cut(name, "=")
	return ok && strings.Contains(words, "--"+strings.ToLower(strings.ReplaceAll(name, "_", "-"))+"=")
}

// byWord is a text of which the order does not count.
func byWord(s string) string {
	all := word.FindAllString(s, -1)
	slices.Sort(all)
	return strings.Join(all, " ") + "\n"
}

func masked(s string) string { return padding.ReplaceAllString(mask.ReplaceAllString(s, "#"), " ") }

// end interrupts what runs in the background.
func (o *operator) end() (exits []string) {
	for _, cmd := range o.background {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		exits = append(exits, cmd.ProcessState.String())
	}
	return exits
}

// transcript is one server's side of a dialogue; its last elements are the exits of what ran in the background.
func transcript(t *testing.T, binary string, lines []string) (all []string) {
	dir := t.TempDir()
	s, err := script.Start(binary, filepath.Join(dir, "data"), []string{"--bcrypt-cost=4"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	o := &operator{t: t, etcdctl: peers.Path(t, "etcdctl"), endpoint: s.ClientAddress(), vars: map[string]string{"$self": s.ClientAddress(), "$dir": dir}}
	o.say(t.Context(), "member list")
	for _, line := range lines {
		for _, l := range formats(line) {
			all = append(all, l+"\n"+o.say(t.Context(), l))
		}
	}
	return append(all, o.end()...)
}

// TestEtcdctl types the same into etcdctl before etcd and before shim: output, errors and exit codes are equal.
func TestEtcdctl(t *testing.T) {
	for name, lines := range dialogues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, have := transcript(t, peers.Path(t, "etcd"), lines), transcript(t, shimPath(t), lines)
			for i := range want {
				if want[i] != have[i] {
					t.Errorf("etcd:\n%s\nshim:\n%s", want[i], have[i])
				} else if testing.Verbose() {
					t.Log(want[i])
				}
			}
		})
	}
}

// subcommand is a line of a list of commands in etcdctl's help.
var subcommand = regexp.MustCompile(`^  ([a-z-]+) +\S`)

// leaves are the commands below one that have none below them.
func leaves(t *testing.T, path ...string) (all []string) {
	out, err := exec.CommandContext(t.Context(), peers.Path(t, "etcdctl"), append(path, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	listed := false
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if m := subcommand.FindStringSubmatch(line); listed && m != nil {
			all = append(all, leaves(t, append(path[:len(path):len(path)], m[1])...)...)
			continue
		}
		listed = strings.HasSuffix(strings.ToLower(strings.TrimSuffix(line, ":")), " commands")
	}
	if all == nil {
		return []string{strings.Join(path, " ")}
	}
	return all
}

// TestEtcdctlComplete walks the commands of etcdctl: each is in a dialogue.
func TestEtcdctlComplete(t *testing.T) {
	var typed strings.Builder
	for _, lines := range dialogues {
		for _, line := range lines {
			words, _, _, _ := split(line)
			typed.WriteString(" " + words + " \n")
		}
	}
	all := leaves(t)
	if len(all) < 40 {
		t.Fatalf("the help lists %d commands: %q", len(all), all)
	}
	for _, leaf := range all {
		if !strings.Contains(typed.String(), " "+leaf+" ") {
			t.Errorf("etcdctl %s is in no dialogue", leaf)
		}
	}
}
