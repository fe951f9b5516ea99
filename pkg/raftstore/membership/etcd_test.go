package membership

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/internal/freeport"
)

// etcdPath is the real etcd's binary, built if it is missing.
func etcdPath(t *testing.T) string {
	build := exec.Command("go", "run", "./test/internal/peers/build", "etcd")
	build.Dir = "../../.."
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		t.Fatalf("build the real etcd: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// logLine is what is of interest in a line of etcd's log.
type logLine struct {
	Level   string `json:"level"`
	Msg     string `json:"msg"`
	Error   string `json:"error"`
	Member  string `json:"local-member-id"`
	Cluster string `json:"cluster-id"`
}

// etcd starts the real one and reads its log until it says one of the things. It is left running until the test ends.
func etcd(t *testing.T, bin string, args []string, until ...string) logLine {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, append(args, "--data-dir", filepath.Join(t.TempDir(), "data"), "--unsafe-no-fsync", "--log-level", "info")...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var text strings.Builder
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
		var l logLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		for _, u := range until {
			if l.Msg == u {
				go func() { _, _ = io.Copy(io.Discard, out) }()
				return l
			}
		}
	}
	t.Fatalf("etcd ended without %q:\n%s", until, text.String())
	return logLine{}
}

const (
	starting = "starting local member"
	failed   = "discovery failed" // what etcd 3.7 calls every failure to start
)

func args(f Flags, more ...string) []string {
	return append([]string{"--name", f.Name, "--initial-cluster", f.InitialCluster, "--initial-cluster-token", f.Token,
		"--initial-advertise-peer-urls", strings.Join(f.PeerURLs, ",")}, more...)
}

// TestBootstrapAsEtcd: from the same flags, the real etcd has the same IDs or the same reason to refuse.
func TestBootstrapAsEtcd(t *testing.T) {
	bin := etcdPath(t)
	a, b, c := "http://"+freeport.Addr(t), "http://"+freeport.Addr(t), "http://"+freeport.Addr(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(a, "http://"))
	three := "c=" + c + ",a=" + a + ",b=" + b
	for name, f := range map[string]Flags{
		"three members":         {Name: "a", InitialCluster: three, Token: "t", PeerURLs: []string{a}},
		"another token":         {Name: "b", InitialCluster: three, Token: "other", PeerURLs: []string{b}},
		"several URLs":          {Name: "a", InitialCluster: "a=" + b + ",c=" + c + ",a=" + a, Token: "t", PeerURLs: []string{a, b}},
		"localhost as address":  {Name: "a", InitialCluster: "a=http://localhost:" + port + ",b=" + b, Token: "t", PeerURLs: []string{"http://localhost:" + port}},
		"name is not there":     {Name: "x", InitialCluster: three, Token: "t", PeerURLs: []string{a}},
		"URL twice":             {Name: "a", InitialCluster: "a=" + a + ",b=" + b + ",c=" + b, Token: "t", PeerURLs: []string{a}},
		"URL twice, of its own": {Name: "a", InitialCluster: "a=" + a + ",b=" + a, Token: "t", PeerURLs: []string{a}},
		"other URL":             {Name: "a", InitialCluster: three, Token: "t", PeerURLs: []string{"http://127.0.0.9:1"}},
		"one URL too many":      {Name: "a", InitialCluster: three, Token: "t", PeerURLs: []string{a, "http://127.0.0.9:1"}},
		"no port":               {Name: "a", InitialCluster: "a=http://127.0.0.1", Token: "t", PeerURLs: []string{a}},
		"no such scheme":        {Name: "a", InitialCluster: "a=ftp://127.0.0.1:1", Token: "t", PeerURLs: []string{a}},
		"path":                  {Name: "a", InitialCluster: "a=http://127.0.0.1:1/x", Token: "t", PeerURLs: []string{a}},
		"malformed":             {Name: "a", InitialCluster: "a", Token: "t", PeerURLs: []string{a}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := "http://" + freeport.Addr(t)
			client := "http://" + freeport.Addr(t)
			l := etcd(t, bin, args(f, "--listen-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client), starting, failed)
			s, err := Bootstrap(t.Context(), f)
			compare(t, l, s, err)
		})
	}
}

func compare(t *testing.T, l logLine, s Start, err error) {
	t.Helper()
	switch {
	case l.Msg == failed && (err == nil || err.Error() != l.Error):
		t.Errorf("%v, etcd: %s", err, l.Error)
	case l.Msg == starting && err != nil:
		t.Errorf("%v, etcd starts", err)
	case l.Msg == starting && (s.Self.ID.String() != l.Member || s.ClusterID.String() != l.Cluster):
		t.Errorf("member %s of cluster %s, etcd: %s of %s", s.Self.ID, s.ClusterID, l.Member, l.Cluster)
	}
}

// fetchHTTP asks an etcd on its peer URL.
func fetchHTTP(ctx context.Context, urls []string) (types.ID, []Member, error) {
	for _, u := range urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u+"/members", nil)
		if err != nil {
			return 0, nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		defer resp.Body.Close()
		var members []Member
		if err := json.NewDecoder(resp.Body).Decode(&members); err != nil {
			return 0, nil, err
		}
		id, err := types.IDFromString(resp.Header.Get("X-Etcd-Cluster-ID"))
		return id, members, err
	}
	return 0, nil, errors.New("could not retrieve cluster information from the given URLs")
}

// TestJoinAsEtcd: a member that joins a running etcd gets the IDs a real one would get, or is refused in the same words.
func TestJoinAsEtcd(t *testing.T) {
	bin := etcdPath(t)
	peer, client, joining := "http://"+freeport.Addr(t), "http://"+freeport.Addr(t), "http://"+freeport.Addr(t)
	etcd(t, bin, args(Flags{Name: "a", InitialCluster: "a=" + peer, Token: "t", PeerURLs: []string{peer}},
		"--listen-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client), "ready to serve client requests")
	conn, err := grpc.NewClient(strings.TrimPrefix(client, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	added, err := pb.NewClusterClient(conn).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{joining}})
	if err != nil {
		t.Fatal(err)
	}
	both := "a=" + peer + ",b=" + joining
	dead := "http://" + freeport.Addr(t)
	for name, f := range map[string]Flags{
		"joins":               {Name: "b", InitialCluster: both, Token: "t", PeerURLs: []string{joining}},
		"token says nothing":  {Name: "b", InitialCluster: both, Token: "x", PeerURLs: []string{joining}},
		"not in the flags":    {Name: "c", InitialCluster: both, Token: "t", PeerURLs: []string{joining}},
		"one member too many": {Name: "b", InitialCluster: both + ",c=" + dead, Token: "t", PeerURLs: []string{joining}},
		"URL twice":           {Name: "b", InitialCluster: both + ",c=" + peer, Token: "t", PeerURLs: []string{joining}},
		"other URL":           {Name: "b", InitialCluster: "a=" + peer + ",b=" + dead, Token: "t", PeerURLs: []string{dead}},
		"nobody there":        {Name: "b", InitialCluster: "a=" + dead + ",b=" + joining, Token: "t", PeerURLs: []string{joining}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // etcd waits for its own version for 7 s
			client := "http://" + freeport.Addr(t)
			l := etcd(t, bin, args(f, "--initial-cluster-state", "existing", "--listen-peer-urls", "http://"+freeport.Addr(t),
				"--listen-client-urls", client, "--advertise-client-urls", client), starting, failed)
			s, err := Join(t.Context(), f, fetchHTTP)
			if err != nil {
				l.Error, err = members(l.Error), errors.New(members(err.Error()))
			}
			compare(t, l, s, err)
			if err == nil && uint64(s.Self.ID) != added.Member.ID {
				t.Errorf("ID %s, was added as %x", s.Self.ID, added.Member.ID)
			}
		})
	}
}

// members puts the members in etcd's text in order; it prints a map.
func members(text string) string {
	begin, end := strings.Index(text, "Members:["), strings.Index(text, "] RemovedMemberIDs")
	if begin < 0 || end < 0 {
		return text
	}
	begin += len("Members:[")
	list := strings.Split(text[begin:end], " &{")
	if len(list) == 2 && "&{"+list[1] < list[0] {
		list = []string{"&{" + list[1], strings.TrimPrefix(list[0], "&{")}
	}
	return text[:begin] + strings.Join(list, " &{") + text[end:]
}
