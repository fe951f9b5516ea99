package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/internal/freeport"
)

// snapshot runs a verb in this process, and answers what it printed.
func snapshot(t testing.TB, want int, environ []string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(append([]string{"snapshot"}, args...), environ, &stdout, &stderr); code != want {
		t.Errorf("shim snapshot %q ends with %d:\n%s%s", args, code, stdout.String(), stderr.String())
	}
	return stdout.String() + stderr.String()
}

// dataDirOf is the value of the flag that the process was started with.
func (p *process) dataDirOf() string {
	for _, arg := range p.cmd.Args {
		if dir, ok := strings.CutPrefix(arg, "--data-dir="); ok {
			return dir
		}
	}
	return ""
}

// restore replaces the data dir of a process that ended by one from the snapshot, with the flags that it had.
func (p *process) restore(file string) string {
	p.t.Helper()
	if err := os.RemoveAll(p.dataDirOf()); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"restore", file}
	for _, arg := range p.cmd.Args {
		for _, flag := range []string{"--name=", "--data-dir=", "--initial-cluster=", "--initial-advertise-peer-urls="} {
			if strings.HasPrefix(arg, flag) {
				args = append(args, arg)
			}
		}
	}
	return snapshot(p.t, exitOK, nil, args...)
}

// TestProcessDisaster: of three members all data is lost, and comes back from a snapshot. A client whose watch has seen more than the snapshot
// holds is told to list again, and then sees what the cluster does. A new member gets all of it.
func TestProcessDisaster(t *testing.T) {
	members := launchCluster(t, "http", 3)
	var endpoints []string
	for _, p := range members {
		p.await()
		endpoints = append(endpoints, p.client)
	}
	members[0].mustPut("kept", "1")
	if got := members[1].mustGet("kept"); got != "1" { // a snapshot is of what its member has applied, as etcd's
		t.Errorf("kept is %q", got)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: startTimeout})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	informer := c.Watch(ctx, "", clientv3.WithPrefix())
	file := filepath.Join(t.TempDir(), "snapshot.db")
	if out := snapshot(t, exitOK, nil, "save", "--endpoints=http://"+members[1].client, file); !strings.Contains(out, "Snapshot saved at "+file) {
		t.Error(out)
	}
	before := strings.Split(snapshot(t, exitOK, nil, "status", file), ", ")[1]
	members[2].mustPut("lost", "2")
	if w := <-informer; w.Err() != nil || string(w.Events[0].Kv.Key) != "lost" {
		t.Fatalf("watched %+v", w)
	}

	for i, p := range members {
		p.stop(syscall.SIGKILL)
		if out := p.restore(file); !strings.Contains(out, "Restored revision "+before+" into") || !strings.Contains(out, "with all before it compacted") {
			t.Errorf("member %d: %s", i, out)
		}
	}
	for i, p := range members {
		members[i] = p.again("--strict-reconfig-check=false") // else nobody may join in the first five seconds
	}
	for _, p := range members {
		p.await()
	}
	if w := <-informer; !errors.Is(w.Err(), rpctypes.ErrCompacted) || w.CompactRevision < bumpRevisionDefault {
		t.Fatalf("the watch goes on with %+v, %v", w, w.Err())
	}
	for _, p := range members {
		if kept, lost := p.mustGet("kept"), p.mustGet("lost"); kept != "1" || lost != "" {
			t.Errorf("%s has kept %q, lost %q", p.client, kept, lost)
		}
	}
	list, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	informer = c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(list.Header.Revision+1))
	members[0].mustPut("new", "3")
	if w := <-informer; w.Err() != nil || string(w.Events[0].Kv.Key) != "new" {
		t.Errorf("watched %+v", w)
	}

	joined := members[0].join("m3")
	joined.await()
	if kept, now := joined.mustGet("kept"), joined.mustGet("new"); kept != "1" || now != "3" {
		t.Errorf("the member that joined has kept %q, new %q", kept, now)
	}
	again := filepath.Join(t.TempDir(), "again.db") // its database replaced the empty one that it began with
	snapshot(t, exitOK, nil, "save", "--endpoints="+joined.client, again)
	snapshot(t, exitOK, nil, "status", again)
}

// TestProcessSnapshotTLS: save has etcdctl's flags and variables.
func TestProcessSnapshotTLS(t *testing.T) {
	dir, sock := t.TempDir(), t.TempDir()
	pki(t, dir)
	p := &process{t: t, client: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
	p.run("--data-dir="+filepath.Join(dir, "data"), "--cert-file="+dir+"/server.crt", "--key-file="+dir+"/server.key", "--trusted-ca-file="+dir+"/ca.crt",
		"--client-cert-auth", "--listen-client-urls=https://"+p.client+",unixs://"+sock+"/s", "--advertise-client-urls=https://"+p.client,
		"--listen-peer-urls=http://"+p.peer, "--initial-advertise-peer-urls=http://"+p.peer, "--initial-cluster=default=http://"+p.peer)
	p.await()
	file := filepath.Join(dir, "snapshot.db")
	files := []string{"--cacert=" + dir + "/ca.crt", "--cert=" + dir + "/client.crt", "--key=" + dir + "/client.key"}
	for _, endpoint := range []string{"https://" + p.client, p.client} {
		snapshot(t, exitOK, nil, append([]string{"save", file, "--endpoints", endpoint}, files...)...)
	}
	snapshot(t, exitOK, nil, "save", file, "--endpoints=unixs://"+sock+"/s", "--insecure-skip-tls-verify", files[1], files[2])
	environ := []string{"ETCDCTL_ENDPOINTS=https://" + p.client, "ETCDCTL_CACERT=" + dir + "/ca.crt", "ETCDCTL_CERT=" + dir + "/client.crt", "ETCDCTL_KEY=" + dir + "/client.key"}
	snapshot(t, exitOK, environ, "save", file)
	snapshot(t, exitOK, nil, "status", file)

	for want, args := range map[string][]string{
		"Unavailable":                                  {"save", file, "--endpoints=https://" + p.client, files[0]},
		"unknown authority":                            {"save", file, "--endpoints=https://" + p.client, files[1], files[2]},
		"names more":                                   {"save", file, "--endpoints=a:1,b:2"},
		"unknown scheme":                               {"save", file, "--endpoints=ftp://a:1"},
		"holds no certificate":                         {"save", file, "--endpoints=" + p.client, "--cacert=" + dir + "/server.key"},
		"connection refused":                           {"save", file, "--endpoints=" + freeport.Addr(t)},
		"no such file or directory":                    {"save", filepath.Join(dir, "none", "snapshot.db"), "--endpoints=https://" + p.client, files[0], files[1], files[2]},
		"not empty":                                    {"restore", file, "--data-dir", dir},
		"couldn't find local name":                     {"restore", file, "--data-dir", dir + "/r", "--initial-cluster=a=http://b:1"},
		"corrupt file " + dir + "/ca":                  {"restore", dir + "/ca.crt", "--data-dir", dir + "/r", "--skip-hash-check"},
		"(--skip-hash-check restores it nevertheless)": {"restore", dir + "/ca.crt", "--data-dir", dir + "/r"},
	} {
		if out := snapshot(t, exitError, nil, args...); !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %s", args, out)
		}
		if _, err := os.Lstat(dir + "/r"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: the data dir is left, %v", args, err)
		}
	}
	for want, args := range map[string][]string{
		"Usage:": {"copy"}, "0 files": {"status"}, "2 files": {"status", "a", "b"}, "output format": {"status", file, "-w", "xml"},
		"not defined": {"save", file, "--nothing"}, "--mark-compacted is required": {"restore", file, "--mark-compacted=false"},
		"and disallowed": {"restore", file, "--bump-revision=0", "--mark-compacted"},
	} {
		if out := snapshot(t, exitUsage, nil, args...); !strings.Contains(out, want) {
			t.Errorf("%q: %s", args, out)
		}
	}
	if out := snapshot(t, exitUsage, []string{"ETCDCTL_DIAL_TIMEOUT=soon"}, "save", file); !strings.Contains(out, "ETCDCTL_DIAL_TIMEOUT") {
		t.Error(out)
	}
	left, err := filepath.Glob(dir + "/*.part")
	if err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}
}

// badServer sends snapshots that are not whole.
type badServer struct {
	pb.UnimplementedMaintenanceServer
	blobs [][]byte
	err   error
}

func (s *badServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	for _, b := range s.blobs {
		if err := stream.Send(&pb.SnapshotResponse{Blob: b, Version: "3.7.0"}); err != nil {
			return err
		}
	}
	return s.err
}

// TestSnapshotSaveWhole: a file gets its name when it is whole, and one that was there stays until then.
func TestSnapshotSaveWhole(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bad, server := &badServer{}, grpc.NewServer()
	pb.RegisterMaintenanceServer(server, bad)
	go func() { _ = server.Serve(ln) }()
	defer server.Stop()
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot.db")
	if err := os.WriteFile(file, []byte("yesterday's"), 0o600); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	sum := sha256.Sum256(content)
	for _, c := range []struct {
		blobs [][]byte
		err   error
		code  int
		want  string
	}{
		{[][]byte{content}, status.Error(codes.Unavailable, "the server goes"), exitError, "the server goes"},
		{[][]byte{content}, nil, exitError, "is not whole"},
		{nil, nil, exitError, "is not whole"},
		{[][]byte{sum[:7]}, nil, exitError, "is not whole"},
		{[][]byte{content[1:], sum[:]}, nil, exitError, "is not whole"},
		{[][]byte{content, sum[:16], sum[16:]}, nil, exitOK, "Server version 3.7.0"},
	} {
		bad.blobs, bad.err = c.blobs, c.err
		if out := snapshot(t, c.code, nil, "save", file, "--endpoints", ln.Addr().String()); !strings.Contains(out, c.want) {
			t.Errorf("%d blobs, %v: %s", len(c.blobs), c.err, out)
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if whole := bytes.Equal(have, append(bytes.Clone(content), sum[:]...)); whole != (c.code == exitOK) || !whole && string(have) != "yesterday's" {
			t.Errorf("%d blobs, %v: the file has %d bytes", len(c.blobs), c.err, len(have))
		}
	}
	if names, err := filepath.Glob(dir + "/*"); err != nil || len(names) != 1 {
		t.Errorf("%q are left, %v", names, err)
	}
}

func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 9: "9 B", 999: "999 B", 1000: "1.0 kB", 1234: "1.2 kB", 9949: "9.9 kB", 9950: "10 kB", 20480: "20 kB",
		999_999: "1000 kB", 1_000_000: "1.0 MB", 8_589_934_592: "8.6 GB"} {
		if have := humanBytes(n); have != want {
			t.Errorf("%d bytes are %q, want %q", n, have, want)
		}
	}
}
