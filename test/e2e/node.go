//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/test/internal/netns"
	"github.com/kubeshim/shim/test/internal/peers"
)

// phaseLimit bounds one phase of kubeadm.
const phaseLimit = 3 * time.Minute

// node is a machine for kubeadm: a network namespace with an address, and a
// root directory that belongs to the test.
type node struct {
	t    testing.TB
	host *netns.Host
	dir  string // root is below it, and the logs are in it
	pods map[string]*pod
}

func newNode(t testing.TB, net *netns.Net, dir, name string) *node {
	t.Helper()
	n := &node{t: t, host: net.Host(t, name), dir: filepath.Join(dir, name), pods: map[string]*pod{}}
	for _, d := range []string{"etc/kubernetes", "var/lib", "proc", "dev", "tmp"} {
		n.mkdir(d)
	}
	n.write("etc/hosts", "127.0.0.1 localhost\n"+n.host.IP()+" "+name+"\n")
	copyFile(t, peers.Path(t, "kubeadm"), n.path("kubeadm"))
	t.Cleanup(n.end)
	return n
}

// path is where the test finds a file of the node.
func (n *node) path(file string) string { return filepath.Join(n.dir, "root", file) }

func (n *node) mkdir(dir string) {
	n.t.Helper()
	if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) write(file, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(file), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) read(file string) []byte {
	n.t.Helper()
	b, err := os.ReadFile(n.path(file))
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

func (n *node) has(file string) bool {
	_, err := os.Stat(n.path(file))
	return err == nil
}

// onNode changes into a root directory once what the kernel gives is in it. The
// namespace of the mounts is the command's own, as ip makes one, and they are
// gone with it.
const onNode = `set -e
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
exec chroot "$0" "$@"`

// kubeadm runs a command of kubeadm on the node, as whoever has a shell there
// would, and answers what it prints.
func (n *node) kubeadm(args ...string) string {
	n.t.Helper()
	cmd, out := n.kubeadmCommand(args...)
	return n.finish(cmd, out, args)
}

func (n *node) kubeadmCommand(args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := n.host.Command("sh", append([]string{"-c", onNode, n.path(""), "/kubeadm"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

func (n *node) finish(cmd *exec.Cmd, out *bytes.Buffer, args []string) string {
	n.t.Helper()
	if err := startAndWait(n.t.Context(), cmd); err != nil {
		n.t.Fatalf("%s: kubeadm %s: %v\n%s", n.host.Name, strings.Join(args, " "), err, out)
	}
	return out.String()
}

// startAndWait runs a command, and kills it when it takes too long.
func startAndWait(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	case <-time.After(phaseLimit):
	}
	_ = cmd.Process.Kill()
	return fmt.Errorf("killed: %w", <-done)
}

// kubectl runs it on the node, with the administrator's kubeconfig that
// kubeadm has written there.
func (n *node) kubectl(stdin string, args ...string) (string, error) {
	cmd := n.host.Command(peers.Path(n.t, "kubectl"), append([]string{
		"--kubeconfig=" + n.path("etc/kubernetes/admin.conf"), "--cache-dir=" + filepath.Join(n.dir, "kubectl"), "--request-timeout=30s"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: kubectl %s: %w: %s", n.host.Name, strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

func (n *node) mustKubectl(stdin string, args ...string) string {
	n.t.Helper()
	out, err := n.kubectl(stdin, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// end shows the logs if the test has failed, and kills the pods: none is worth
// the wait for what it depends on and another node had.
func (n *node) end() {
	for _, p := range n.pods {
		if n.t.Failed() {
			n.t.Log(p.tail())
		}
		p.kill()
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
