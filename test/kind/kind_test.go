package kind

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/kubeshim/shim/test/internal/peers"
)

const hack = "../../hack"

func scripts(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(hack + "/*.sh")
	more, err2 := filepath.Glob(hack + "/*/*.sh")
	if all = append(all, more...); err != nil || err2 != nil || len(all) < 3 {
		t.Fatalf("scripts %q: %v %v", all, err, err2)
	}
	return all
}

func TestScriptsParse(t *testing.T) {
	for _, script := range scripts(t) {
		if out, err := exec.Command("bash", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		if path, err := exec.LookPath("shellcheck"); err == nil {
			if out, err := exec.Command(path, script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", script, err, out)
			}
		}
	}
}

// render is what kind gives to kubeadm on the first control-plane node.
func render(t *testing.T, config string) string {
	t.Helper()
	out, err := exec.Command(peers.Path(t, "kindconfig"), config, "shim-control-plane", "172.18.0.2", "shim-control-plane:6443", "v1.37.0").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", config, err, out)
	}
	return string(out)
}

func TestConfigs(t *testing.T) {
	for config, want := range map[string][]string{
		"stacked.yaml":  {"  local:\n    imageRepository: shim.local\n    imageTag: dev\n"},
		"external.yaml": {"  external:\n", "    - https://shim-etcd:2379\n", "    caFile: /etc/shim/ca.crt\n", "    certFile: /etc/shim/client.crt\n"},
	} {
		got := render(t, filepath.Join(hack, "kind", config))
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: kubeadm's configuration lacks %q:\n%s", config, w, got)
			}
		}
	}
}

// TestLoaderRefuses: the check is able to fail.
func TestLoaderRefuses(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(hack, "kind", "stacked.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte(strings.Replace(string(text), "role: worker", "rule: worker", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(peers.Path(t, "kindconfig"), bad, "a", "b", "c", "v1.37.0").CombinedOutput(); err == nil {
		t.Errorf("loaded: %s", out)
	}
}

// standIn writes its name and arguments down; docker says that it has buildx
// and a daemon on this architecture, and names the container it starts.
const standIn = `#!/bin/sh
echo "${0##*/} $*" >>"$LOG"
case "${0##*/} $*" in
"docker info --format "*) echo ` + "ARCH" + ` ;;
"docker run "*) echo builder ;;
"docker exec --interactive "*) cat >/dev/null ;;
esac
`

// up runs a script with stand-ins, and answers what it asked of them.
func up(t *testing.T, script string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, name := range []string{"docker", "kind"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Replace(standIn, "ARCH", runtime.GOARCH, 1)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(hack, "kind", script), args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "LOG="+log, "CLUSTER=test-of-scripts")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", script, args, err, out)
	}
	asked, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(asked)
}

// inOrder fails unless the patterns match lines of text in this order.
func inOrder(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, p := range patterns {
		at := regexp.MustCompile("(?m)^" + p).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("there is no %q behind what was before it in:\n%s", p, text)
		}
		rest = rest[at[1]:]
	}
}

func TestUpAndDown(t *testing.T) {
	inOrder(t, up(t, "up.sh", "stacked"),
		`docker buildx build --platform linux/`+runtime.GOARCH+` --tag shim.local/etcd:dev --load \.$`,
		`docker run --detach --entrypoint sleep .*kindest/node:`,
		`docker (save shim.local/etcd:dev|exec --interactive builder ctr --namespace=k8s.io images import)`,
		`docker commit .* builder shim.local/node:dev$`,
		`kind create cluster --name test-of-scripts --image shim.local/node:dev --config .*/hack/kind/stacked.yaml$`,
		`docker rm --force --volumes builder$`)
	inOrder(t, up(t, "down.sh"), `kind delete cluster --name test-of-scripts$`, `docker rm --force --volumes shim-etcd$`)
}

// TestUpExternal also loads the configuration that up.sh has made, and looks at
// its certificates and at the flags of the server, whose process starts with
// them.
func TestUpExternal(t *testing.T) {
	asked := up(t, "up.sh", "external")
	defer up(t, "down.sh")
	inOrder(t, asked, `docker buildx build `, `docker run --detach --name shim-etcd --network kind .* shim.local/etcd:dev etcd --name=`,
		`kind create cluster --name test-of-scripts --image kindest/node:.* --config .*/cluster.yaml$`)
	work := "../../bin/kind/test-of-scripts"
	if got := render(t, work+"/cluster.yaml"); !strings.Contains(got, "https://shim-etcd:2379") {
		t.Errorf("kubeadm's configuration:\n%s", got)
	}
	for _, name := range []string{"server", "client"} {
		out, err := exec.Command("openssl", "verify", "-CAfile", work+"/certs/ca.crt", work+"/certs/"+name+".crt").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	_, command, _ := strings.Cut(asked, " shim.local/etcd:dev etcd ")
	command, _, _ = strings.Cut(command, "\n")
	refused := append(strings.Fields(command), "--election-timeout=1") // the last thing looked at: all before was understood
	out, err := exec.Command(peers.Shim(t), refused...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--election-timeout[1ms] should be at least") || strings.Contains(string(out), "has no effect") {
		t.Errorf("shim %q: %v\n%s", refused, err, out)
	}
}

// TestImageSaysWhatIsMissing: without docker and podman.
func TestImageSaysWhatIsMissing(t *testing.T) {
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-C", root, "cross", "CROSS=", "PLATFORMS=linux/"+runtime.GOARCH).CombinedOutput(); err != nil {
		t.Fatalf("make cross: %v\n%s", err, out)
	}
	dir := t.TempDir()
	for _, tool := range []string{"bash", "env", "dirname"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(hack, "image.sh"), "x", "linux/"+runtime.GOARCH)
	cmd.Env = []string{"PATH=" + dir}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "docker is not installed") || !strings.Contains(string(out), "podman is not installed") {
		t.Errorf("%v\n%s", err, out)
	}
	image, err := os.Readlink(filepath.Join(root, "bin/image/linux-"+runtime.GOARCH, "usr/local/bin/etcd"))
	if err != nil || image != "shim" {
		t.Errorf("etcd in the image: %q, %v", image, err)
	}
}
