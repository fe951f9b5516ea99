package netns_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/netns"
	"github.com/kubeshim/shim/test/internal/peers"
)

// TestShim: a server on one host and a client on another, as tests of several
// members use them. Its calls hang while the client is cut off.
func TestShim(t *testing.T) {
	n := netns.New(t)
	server, client := n.Host(t, "server"), n.Host(t, "client")
	url := "http://" + server.Addr(2379)
	cmd := server.Command(peers.Shim(t), "--data-dir="+filepath.Join(t.TempDir(), "data"), "--log-level=warn",
		"--listen-client-urls="+url, "--advertise-client-urls="+url)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	conn, err := grpc.NewClient("passthrough:///"+server.Addr(2379), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return client.Dial(ctx, addr) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	put := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("k")}, grpc.WaitForReady(true))
		return err
	}
	if err := put(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	n.Isolate(client)
	if err := put(100 * time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("cut off: %v", err)
	}
	n.Heal()
	if err := put(2 * time.Minute); err != nil {
		t.Errorf("healed: %v", err)
	}
}
