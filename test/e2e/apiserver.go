//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubeshim/shim/internal/freeport"
	"github.com/kubeshim/shim/test/internal/peers"
)

// apiserver is one kube-apiserver, and how kubectl speaks to it.
type apiserver struct {
	*process
	kubectl    string
	kubeconfig string
}

// startAPIServer starts one of several that share a store and all secrets.
func (c *cluster) startAPIServer(i int) *apiserver {
	c.t.Helper()
	name, port := fmt.Sprintf("kube-apiserver-%d", i), freeport.Port(c.t)
	s := &apiserver{kubectl: peers.Path(c.t, "kubectl"), kubeconfig: filepath.Join(c.dir, name+".kubeconfig")}
	c.write(s.kubeconfig, fmt.Sprintf(`apiVersion: v1
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
`, port, adminToken))
	s.process = c.startComponent(name, c.kubernetes("kube-apiserver"),
		"--etcd-servers="+strings.Join(c.clientURLs(), ","),
		"--etcd-cafile="+c.ca.certFile(),
		"--etcd-certfile="+filepath.Join(c.dir, "client.crt"),
		"--etcd-keyfile="+filepath.Join(c.dir, "client.key"),
		"--etcd-compaction-interval="+compactionInterval.String(),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--advertise-address=192.0.2.%d", i+1), // each its own, for documentation: nobody goes there
		fmt.Sprintf("--secure-port=%d", port),
		"--cert-dir="+filepath.Join(c.dir, name),
		"--service-account-key-file="+filepath.Join(c.dir, "sa.pub"),
		"--service-account-signing-key-file="+filepath.Join(c.dir, "sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--token-auth-file="+filepath.Join(c.dir, "tokens.csv"),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--event-ttl=1h",
	)
	return s
}

// try runs kubectl with the given standard input.
func (s *apiserver) try(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.kubectl, append([]string{"--kubeconfig=" + s.kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// tryKubectl speaks to the first apiserver.
func (c *cluster) tryKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.apiservers[0].try(ctx, stdin, args...)
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

// objectList is a list, whose resource version is that of the store when it
// was read.
type objectList struct {
	Metadata objectMeta `json:"metadata"`
	Items    []object   `json:"items"`
}

// list answers what kubectl get shows.
func (c *cluster) list(args ...string) []object {
	c.t.Helper()
	l, err := c.apiservers[0].list(c.ctx, append([]string{"-o", "json"}, args...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	return l.Items
}

// list decodes what kubectl get prints with these arguments.
func (s *apiserver) list(ctx context.Context, args ...string) (l objectList, err error) {
	out, err := s.try(ctx, "", append([]string{"get"}, args...)...)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		return l, fmt.Errorf("decode list %s: %w", strings.Join(args, " "), err)
	}
	return l, nil
}
