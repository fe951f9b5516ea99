//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeshim/shim/test/internal/peers"
)

const (
	adminToken = "e2e-admin-token"
	// readyLimit bounds the start of one component.
	readyLimit = 2 * time.Minute
	// compactionInterval is how often each apiserver compacts, short so that
	// a run sees several.
	compactionInterval = 15 * time.Second
)

// layout is how many servers a control plane has, and of which version.
type layout struct {
	minor      string // suffix of the Kubernetes programs, see package peers: "" is the newest
	members    int    // of the store
	apiservers int
}

// cluster is a control plane on one store.
type cluster struct {
	layout
	t         testing.TB // the step under way, which fails
	ctx       context.Context
	dir       string
	ca        *authority
	storePath string // the store's program: shim, or what E2E_STORE names

	members    []*member
	apiservers []*apiserver
	components []*process // the apiservers and all that talks to them, in the order of their start
}

// newCluster brings up store, apiservers, controller-manager, scheduler and
// kwok, and returns once the apiservers are ready.
func newCluster(t testing.TB, shape layout) *cluster {
	t.Helper()
	dir := t.TempDir()
	if keep := os.Getenv("E2E_DIR"); keep != "" { // to look at logs afterwards
		dir = filepath.Join(keep, t.Name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// An apiserver whose cache differs from the store is to end.
	t.Setenv("KUBE_WATCHCACHE_CONSISTENCY_CHECKER", "true")
	c := &cluster{layout: shape, t: t, ctx: t.Context(), dir: dir, ca: newAuthority(t, dir)}
	switch name := os.Getenv("E2E_STORE"); name {
	case "":
		c.storePath = peers.Shim(t)
	default: // a peer, to see that the test itself is right
		c.storePath = peers.Path(t, name)
	}
	t.Cleanup(c.end)
	c.ca.issue("server")
	c.ca.issue("client")
	c.startStore()
	c.startControlPlane()
	return c
}

func (c *cluster) startControlPlane() {
	c.t.Helper()
	c.write(filepath.Join(c.dir, "tokens.csv"), adminToken+",admin,admin,system:masters\n")
	newServiceAccountKey(c.t, c.dir)
	for i := range c.layout.apiservers {
		c.apiservers = append(c.apiservers, c.startAPIServer(i))
	}
	for _, s := range c.apiservers {
		c.await(s.name, s.process, func(ctx context.Context) error {
			_, err := s.try(ctx, "", "get", "--raw", "/readyz")
			return err
		})
	}
	// With several apiservers, what one writes is what another tells of.
	first, last := c.apiservers[0].kubeconfig, c.apiservers[len(c.apiservers)-1].kubeconfig
	c.startComponent("kube-controller-manager", c.kubernetes("kube-controller-manager"),
		"--kubeconfig="+first, "--secure-port=0",
		"--service-account-private-key-file="+filepath.Join(c.dir, "sa.key"),
		"--use-service-account-credentials=false",
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
	c.startComponent("kube-scheduler", c.kubernetes("kube-scheduler"),
		"--kubeconfig="+last, "--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
	c.startComponent("kwok", peers.Path(c.t, "kwok"),
		"--kubeconfig="+last, "--config="+c.writeStages(),
		"--manage-all-nodes=true", "--node-lease-duration-seconds=20",
	)
}

// startComponent starts what must run until the test ends.
func (c *cluster) startComponent(name, path string, args ...string) *process {
	c.t.Helper()
	p := start(c.t, c.dir, name, path, args...)
	c.components = append(c.components, p)
	return p
}

// restart ends a component and starts it with the same arguments.
func (c *cluster) restart(name string) {
	c.t.Helper()
	i := slices.IndexFunc(c.components, func(p *process) bool { return p.name == name })
	old := c.components[i]
	old.stop()
	c.components[i] = start(c.t, c.dir, name, old.cmd.Path, old.cmd.Args[1:]...)
}

func (c *cluster) kubernetes(program string) string {
	c.t.Helper()
	return peers.Path(c.t, program+c.minor)
}

// writeStages joins kwok's own stages: without them it does nothing.
func (c *cluster) writeStages() string {
	dir := filepath.Join(peers.ModuleDir(c.t, "kwok", "sigs.k8s.io/kwok"), "kustomize", "stage")
	var parts []string
	for _, name := range []string{
		"node/fast/node-initialize.yaml",
		"node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
		"pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			c.t.Fatalf("kwok stage: %v", err)
		}
		parts = append(parts, string(b))
	}
	path := filepath.Join(c.dir, "kwok.yaml")
	c.write(path, strings.Join(parts, "\n---\n"))
	return path
}

func (c *cluster) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// await waits until check holds, and fails early when the process has ended.
func (c *cluster) await(what string, p *process, check func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := eventually(ctx, readyLimit, check); err != nil {
		c.t.Fatalf("%s is not ready: %v\n%s", what, err, p.tail())
	}
}

// checkRunning fails when a component has ended: none may need a restart.
func (c *cluster) checkRunning() {
	c.t.Helper()
	for _, p := range c.components {
		if !p.running() {
			c.t.Errorf("%s has ended: %v\n%s", p.name, p.err, p.tail())
		}
	}
}

// processes are all that were started and not replaced, the store's first.
func (c *cluster) processes() []*process {
	var all []*process
	for _, m := range c.members {
		if m.process != nil {
			all = append(all, m.process)
		}
	}
	return append(all, c.components...)
}

// end shows the logs if the test has failed, and ends all processes: the store
// last, because nothing that talks to it ends well without.
func (c *cluster) end() {
	if c.t.Failed() {
		for _, p := range c.processes() {
			c.t.Log(p.tail())
		}
	}
	for _, p := range slices.Backward(c.processes()) {
		p.stop()
	}
}

// complaint is what no component logs while the store keeps its promises: a
// cache that differs from the store, or the end of a program. Excused is what
// an apiserver says until the first of several has written the default.
var (
	complaint = regexp.MustCompile(`(?i)inconsisten|consistency check failed|observed a panic|^panic: |^fatal error: |"level":"(fatal|panic|dpanic)"`)
	excused   = regexp.MustCompile(`ServiceCIDR`)
)

// checkLogs fails for each line of a log that is a complaint.
func (c *cluster) checkLogs() {
	c.t.Helper()
	for _, p := range c.processes() {
		b, err := os.ReadFile(p.logFile)
		if err != nil {
			c.t.Fatalf("log of %s: %v", p.name, err)
		}
		for line := range strings.Lines(string(b)) {
			if complaint.MatchString(line) && !excused.MatchString(line) {
				c.t.Errorf("%s logged: %s", p.name, line)
			}
		}
	}
}
