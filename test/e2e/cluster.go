//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/test/internal/peers"
)

const (
	adminToken = "e2e-admin-token"
	// readyLimit bounds the start of one component.
	readyLimit = 2 * time.Minute
	// compactionInterval is how often the apiserver compacts, short so that
	// a run sees several.
	compactionInterval = 15 * time.Second
)

// cluster is a control plane on one store.
type cluster struct {
	owner     testing.TB // whose end ends the processes
	t         testing.TB // the step under way, which fails
	ctx       context.Context
	dir       string
	ca        *authority
	storePath string // the store's program: shim, or what E2E_STORE names
	storePort int
	metrics   int
	apiPort   int
	minor     string // suffix of the Kubernetes programs: "" is the newest
	kubectl   string

	store      *process
	apiserver  *process
	components []*process // the apiserver and all that talks to it
}

// newCluster brings up store, apiserver, controller-manager, scheduler and
// kwok, and returns once the apiserver is ready. The suffix picks the minor
// version of Kubernetes, see package peers.
func newCluster(t testing.TB, minor string) *cluster {
	t.Helper()
	dir := t.TempDir()
	if keep := os.Getenv("E2E_DIR"); keep != "" { // to look at logs afterwards
		dir = filepath.Join(keep, t.Name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{
		owner: t, t: t, minor: minor, ctx: t.Context(), dir: dir, ca: newAuthority(t, dir),
		storePort: freePort(t), metrics: freePort(t), apiPort: freePort(t),
		kubectl: peers.Path(t, "kubectl"),
	}
	switch name := os.Getenv("E2E_STORE"); name {
	case "":
		c.storePath = peers.Shim(t)
	default: // a peer, to see that the test itself is right
		c.storePath = peers.Path(t, name)
	}
	t.Cleanup(c.explainFailure)
	c.ca.issue("server")
	c.ca.issue("client")
	c.startStore()
	c.startControlPlane()
	return c
}

func (c *cluster) storeURL() string { return fmt.Sprintf("https://127.0.0.1:%d", c.storePort) }

// startStore starts, or after a kill restarts, the store on its data dir and
// waits for its readiness probe.
func (c *cluster) startStore() {
	c.t.Helper()
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", freePort(c.t))
	c.store = start(c.owner, c.dir, "store", c.storePath,
		"--name=e2e",
		"--data-dir="+filepath.Join(c.dir, "data"),
		"--listen-client-urls="+c.storeURL(),
		"--advertise-client-urls="+c.storeURL(),
		"--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=e2e="+peerURL,
		fmt.Sprintf("--listen-metrics-urls=http://127.0.0.1:%d", c.metrics),
		"--cert-file="+filepath.Join(c.dir, "server.crt"),
		"--key-file="+filepath.Join(c.dir, "server.key"),
		"--client-cert-auth=true",
		"--trusted-ca-file="+c.ca.certFile(),
		"--watch-progress-notify-interval=5s",
		"--feature-gates=InitialCorruptCheck=true",
	)
	c.await("store", c.store, func(ctx context.Context) error {
		return getOK(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz", c.metrics))
	})
}

func (c *cluster) startControlPlane() {
	c.t.Helper()
	tokens := filepath.Join(c.dir, "tokens.csv")
	c.write(tokens, adminToken+",admin,admin,system:masters\n")
	kubeconfig := c.writeKubeconfig()
	public, private := newServiceAccountKey(c.t, c.dir)

	c.apiserver = start(c.owner, c.dir, "kube-apiserver", c.kubernetes("kube-apiserver"),
		"--etcd-servers="+c.storeURL(),
		"--etcd-cafile="+c.ca.certFile(),
		"--etcd-certfile="+filepath.Join(c.dir, "client.crt"),
		"--etcd-keyfile="+filepath.Join(c.dir, "client.key"),
		"--etcd-compaction-interval="+compactionInterval.String(),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.apiPort),
		"--cert-dir="+filepath.Join(c.dir, "apiserver"),
		"--service-account-key-file="+public,
		"--service-account-signing-key-file="+private,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--token-auth-file="+tokens,
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--event-ttl=1h",
	)
	c.await("kube-apiserver", c.apiserver, func(ctx context.Context) error {
		_, err := c.tryKubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
	manager := start(c.owner, c.dir, "kube-controller-manager", c.kubernetes("kube-controller-manager"),
		"--kubeconfig="+kubeconfig, "--secure-port=0",
		"--service-account-private-key-file="+private,
		"--use-service-account-credentials=false",
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
	scheduler := start(c.owner, c.dir, "kube-scheduler", c.kubernetes("kube-scheduler"),
		"--kubeconfig="+kubeconfig, "--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
	kwok := start(c.owner, c.dir, "kwok", peers.Path(c.t, "kwok"),
		"--kubeconfig="+kubeconfig, "--config="+c.writeStages(),
		"--manage-all-nodes=true", "--node-lease-duration-seconds=40",
	)
	c.components = []*process{c.apiserver, manager, scheduler, kwok}
}

func (c *cluster) kubernetes(program string) string {
	c.t.Helper()
	return peers.Path(c.t, program+c.minor)
}

func (c *cluster) writeKubeconfig() string {
	path := filepath.Join(c.dir, "kubeconfig")
	c.write(path, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: e2e
  cluster: {server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true}
users:
- name: admin
  user: {token: %s}
contexts:
- name: e2e
  context: {cluster: e2e, user: admin}
current-context: e2e
`, c.apiPort, adminToken))
	return path
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

// tryKubectl runs kubectl with the given standard input.
func (c *cluster) tryKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig=" + filepath.Join(c.dir, "kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

func (c *cluster) run(stdin string, args ...string) string {
	c.t.Helper()
	out, err := c.tryKubectl(c.ctx, stdin, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// objectMeta is what the assertions read of any object.
type objectMeta struct {
	Name            string `json:"name"`
	Namespace       string `json:"namespace"`
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
}

type object struct {
	Metadata objectMeta `json:"metadata"`
	Status   struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

func (c *cluster) list(args ...string) []object {
	c.t.Helper()
	var l struct {
		Items []object `json:"items"`
	}
	if err := json.Unmarshal([]byte(c.run("", append([]string{"get", "-o", "json"}, args...)...)), &l); err != nil {
		c.t.Fatalf("decode list: %v", err)
	}
	return l.Items
}

// client speaks to the store itself, past the apiserver.
func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "client.crt"), filepath.Join(c.dir, "client.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{c.storeURL()},
		TLS:         &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		DialTimeout: readyLimit,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cli.Close() })
	return cli
}

// dataSize is the size of the store's data dir in bytes.
func (c *cluster) dataSize() (total int64) {
	err := filepath.Walk(filepath.Join(c.dir, "data"), func(_ string, info os.FileInfo, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist): // removed while we looked
			return nil
		case err != nil:
			return err
		case info.Mode().IsRegular():
			total += info.Size()
		}
		return nil
	})
	if err != nil {
		c.t.Fatalf("size of the data dir: %v", err)
	}
	return total
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

func (c *cluster) explainFailure() {
	if !c.t.Failed() {
		return
	}
	for _, p := range append([]*process{c.store}, c.components...) {
		if p != nil {
			c.t.Log(p.tail())
		}
	}
}

func getOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
