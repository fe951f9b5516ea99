package migrate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/test/internal/peers"
)

// systemctl is the stand-in: one unit, whose process it starts and stops. start
// waits for an answer of the server, as Type=notify does, unless it is told not
// to.
const systemctl = `#!/usr/bin/env bash
set -euo pipefail
verb=$1; shift
wait=yes
if [ "${1:-}" = --no-block ]; then wait=no; shift; fi
case $verb in
daemon-reload) ;;
start)
	command=$(sed -n 's/^ExecStart=//p' "$UNIT")
	setsid --fork bash -c 'echo $$ >"$0"; exec >>"$0.log" 2>&1; exec $1' "$PIDFILE" "$command" </dev/null >/dev/null 2>&1
	if [ $wait = yes ]; then
		for _ in {1..300}; do
			if etcdctl --endpoints="$ENDPOINT" --command-timeout=1s get x >/dev/null 2>&1; then exit 0; fi
			sleep 0.1
		done
		echo "the unit does not start" >&2; exit 1
	fi ;;
stop)
	pid=$(cat "$PIDFILE")
	kill "$pid"
	for _ in {1..300}; do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.1; done
	echo "the unit does not stop" >&2; exit 1 ;;
*) echo "systemctl $verb is not known here" >&2; exit 1 ;;
esac
`

// host is a machine of the page's reader.
type host struct {
	t    *testing.T
	name string
	dir  string
	ip   string
	env  map[string]string
}

// newHosts makes hosts whose unit runs a program, as the members of one
// cluster. The backup directory is one for all: to copy a file to all hosts is
// nothing.
func newHosts(t *testing.T, count int, program string) (hosts []*host) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	backup := filepath.Join(dir, "backup")
	for _, d := range []string{bin, backup} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(bin, "systemctl"), systemctl)
	programs := map[string]string{"shim": peers.Shim(t)}
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		programs[name] = peers.Path(t, name)
	}
	for name, path := range programs {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	var cluster []string
	for i := range count {
		h := &host{t: t, name: fmt.Sprintf("member-%d", i+1), ip: fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()>>8&63, os.Getpid()&255, i+1)}
		h.dir = filepath.Join(dir, h.name)
		h.env = map[string]string{
			"NAME": h.name, "PEER": "http://" + h.ip + ":2380", "ENDPOINT": "http://" + h.ip + ":2379",
			"DATA": filepath.Join(h.dir, "data"), "UNIT": filepath.Join(h.dir, "etcd.service"), "PIDFILE": filepath.Join(h.dir, "pid"),
			"BACKUP": backup, "ETCD": filepath.Join(bin, "etcd"), "SHIM": filepath.Join(bin, "shim"),
			"PATH": bin + ":" + os.Getenv("PATH"), "HOME": dir,
		}
		if err := os.Mkdir(h.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cluster = append(cluster, h.name+"="+h.env["PEER"])
		hosts = append(hosts, h)
		t.Cleanup(h.end)
	}
	for _, h := range hosts {
		h.env["CLUSTER"] = strings.Join(cluster, ",")
		write(t, h.env["UNIT"], fmt.Sprintf("[Service]\nExecStart=%s --name=%s --data-dir=%s --listen-client-urls=%s --advertise-client-urls=%[4]s "+
			"--listen-peer-urls=%[5]s --initial-advertise-peer-urls=%[5]s --initial-cluster=%[6]s --initial-cluster-state=new\n",
			h.env[program], h.name, h.env["DATA"], h.env["ENDPOINT"], h.env["PEER"], h.env["CLUSTER"]))
	}
	for _, h := range hosts {
		h.run("systemctl start --no-block etcd")
	}
	return hosts
}

// run runs commands as the page's reader would, and stops at the first that
// fails.
func (h *host) run(script string) string {
	h.t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = h.dir
	for name, value := range h.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s\n%s\nlog: %s", h.name, err, script, out, h.log())
	}
	return string(out)
}

func (h *host) log() string {
	b, _ := os.ReadFile(h.env["PIDFILE"] + ".log")
	return string(b[max(0, len(b)-3000):])
}

// end kills what runs.
func (h *host) end() {
	b, err := os.ReadFile(h.env["PIDFILE"])
	if err != nil {
		return // never started
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
