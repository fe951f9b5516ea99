//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubeshim/shim/test/internal/peers"
)

// manifest is what of a static pod a kubelet needs to run it.
type manifest struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Annotations map[string]string `json:"annotations"`
		Labels      map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		HostNetwork bool        `json:"hostNetwork"`
		Containers  []container `json:"containers"`
		Volumes     []struct {
			Name     string `json:"name"`
			HostPath struct {
				Path string `json:"path"`
				Type string `json:"type"`
			} `json:"hostPath"`
		} `json:"volumes"`
	} `json:"spec"`
}

type container struct {
	Image        string   `json:"image"`
	Command      []string `json:"command"`
	Args         []string `json:"args"`
	VolumeMounts []struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
		ReadOnly  bool   `json:"readOnly"`
	} `json:"volumeMounts"`
	Ports          []containerPort `json:"ports"`
	LivenessProbe  *probe          `json:"livenessProbe"`
	ReadinessProbe *probe          `json:"readinessProbe"`
	StartupProbe   *probe          `json:"startupProbe"`
}

type containerPort struct {
	Name          string `json:"name"`
	ContainerPort int    `json:"containerPort"`
}

// pod is a static pod: its container runs as a process on its node.
type pod struct {
	*process
	node     *node
	manifest manifest
}

// inContainer makes the root directory of a container and changes into it: what
// the image has, and the volumes. Its arguments are the directory, triples of
// source, target and ro or rw, "--", and the command, which is looked for in
// the PATH of every container.
const inContainer = `set -e
root=$0
mount -t tmpfs tmpfs "$root"
mkdir "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
	if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; : >"$root$2"; fi
	mount --bind "$1" "$root$2"
	if [ "$3" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
	shift 3
done
shift
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec chroot "$root" "$@"`

// start runs what a manifest of kubeadm's says, as its kubelet would: the
// command in a root directory with the image's files and the manifest's volumes
// and nothing else, on the node's network. image says which files an image has.
func (n *node) start(name string) *pod {
	n.t.Helper()
	p := &pod{node: n, manifest: parseManifest(n.t, n.read("etc/kubernetes/manifests/"+name+".yaml"))}
	if m := p.manifest; !m.Spec.HostNetwork || len(m.Spec.Containers) != 1 || m.Metadata.Name != name {
		n.t.Fatalf("unexpected manifest of %s: %+v", name, m)
	}
	p.run()
	n.pods[name] = p
	return p
}

func parseManifest(t testing.TB, text []byte) (m manifest) {
	t.Helper()
	if err := yaml.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *pod) run() {
	n, name := p.node, p.manifest.Metadata.Name
	n.t.Helper()
	root := filepath.Join(n.dir, "container-"+name)
	if err := os.MkdirAll(root, 0o755); err != nil {
		n.t.Fatal(err)
	}
	args := []string{"-c", inContainer, root}
	args = append(args, image(n.t, name)...)
	args = append(args, n.path("etc/hosts"), "/etc/hosts", "ro") // a kubelet gives it to all
	c := p.manifest.Spec.Containers[0]
	for _, m := range c.VolumeMounts {
		how := "rw"
		if m.ReadOnly {
			how = "ro"
		}
		args = append(args, p.volume(m.Name), m.MountPath, how)
	}
	args = append(append(append(args, "--"), c.Command...), c.Args...)
	p.process = launch(n.t, n.dir, name, n.host.Command("sh", args...))
}

// volume is where the node has a volume. It is made if it is not there, as its
// type says.
func (p *pod) volume(name string) string {
	p.node.t.Helper()
	for _, v := range p.manifest.Spec.Volumes {
		if v.Name != name {
			continue
		}
		switch v.HostPath.Type {
		case "DirectoryOrCreate":
			p.node.mkdir(v.HostPath.Path)
		case "FileOrCreate":
		default:
			p.node.t.Fatalf("volume %s has the type %q", name, v.HostPath.Type)
		}
		return p.node.path(v.HostPath.Path)
	}
	p.node.t.Fatalf("there is no volume %s", name)
	return ""
}

// image is the files of a component's image, as sources, targets and ro. That
// of etcd is what `make image` puts into it, unless E2E_STORE names a peer. The
// others have the libraries of this machine beside them, as our builds of them
// are not static.
func image(t testing.TB, component string) (files []string) {
	t.Helper()
	program := component
	if component == "etcd" {
		program = os.Getenv("E2E_STORE")
	}
	if program == "" {
		root, err := peers.Root()
		if err != nil {
			t.Fatal(err)
		}
		return []string{filepath.Join(root, "bin/image/linux-"+runtime.GOARCH, "usr"), "/usr", "ro"}
	}
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(dir); err == nil {
			files = append(files, dir, dir, "ro")
		}
	}
	return append(files, peers.Path(t, program), "/usr/local/bin/"+component, "ro")
}

// probe is one of a container's health checks.
type probe struct {
	FailureThreshold    int `json:"failureThreshold"`
	InitialDelaySeconds int `json:"initialDelaySeconds"`
	PeriodSeconds       int `json:"periodSeconds"`
	TimeoutSeconds      int `json:"timeoutSeconds"`
	HTTPGet             struct {
		Host   string `json:"host"`
		Path   string `json:"path"`
		Port   any    `json:"port"`
		Scheme string `json:"scheme"`
	} `json:"httpGet"`
}

// awaitStartup asks the startup probe at its own pace until it holds, and fails
// when a kubelet would start the container again.
func (p *pod) awaitStartup() {
	t, probe := p.node.t, p.manifest.Spec.Containers[0].StartupProbe
	t.Helper()
	limit := time.Duration(probe.FailureThreshold*probe.PeriodSeconds) * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := eventually(ctx, limit, func(ctx context.Context) error { return p.probe(ctx, probe) }); err != nil {
		t.Fatalf("%s on %s: startup probe: %v\n%s", p.name, p.node.host, err, p.tail())
	}
}

// awaitHealthy waits for the startup probe, and then for readiness; liveness
// has to hold at once, as it would end the container.
func (p *pod) awaitHealthy() {
	t, c := p.node.t, p.manifest.Spec.Containers[0]
	t.Helper()
	p.awaitStartup()
	if err := p.probe(t.Context(), c.LivenessProbe); err != nil {
		t.Errorf("%s on %s: liveness probe: %v", p.name, p.node.host, err)
	}
	err := eventually(t.Context(), readyLimit, func(ctx context.Context) error { return p.probe(ctx, c.ReadinessProbe) })
	if err != nil {
		t.Fatalf("%s on %s: readiness probe: %v\n%s", p.name, p.node.host, err, p.tail())
	}
}

// probe asks once, from the node, as a kubelet does: a certificate is not
// checked, any answer from 200 to 399 is good. A probe that is not there holds.
func (p *pod) probe(ctx context.Context, x *probe) error {
	if x == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, x.TimeoutSeconds))*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext:       p.node.host.DialNetwork,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	scheme := "http"
	if x.HTTPGet.Scheme == "HTTPS" {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%s:%d%s", scheme, x.HTTPGet.Host, p.port(x.HTTPGet.Port), x.HTTPGet.Path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// port is a port of the container's, by number or by name.
func (p *pod) port(port any) int {
	if number, ok := port.(float64); ok {
		return int(number)
	}
	ports := p.manifest.Spec.Containers[0].Ports
	i := slices.IndexFunc(ports, func(c containerPort) bool { return c.Name == port })
	if i < 0 {
		p.node.t.Fatalf("%s has no port %v", p.manifest.Metadata.Name, port)
	}
	return ports[i].ContainerPort
}
