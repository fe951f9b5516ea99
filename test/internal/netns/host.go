package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Host is a namespace with one address.
type Host struct {
	Name string

	net   *Net
	space string
	addr  netip.Addr
	mac   [6]byte
	port  *os.File // the switch's end of its link

	resolv string // a file; "": the machine's
}

// IP is the host's address.
func (h *Host) IP() string { return h.addr.String() }

// Addr is a port of the host, as host:port.
func (h *Host) Addr(port int) string { return fmt.Sprintf("%s:%d", h.addr, port) }

func (h *Host) String() string { return h.Name }

// Command is a process on this host. It gets SIGKILL when the test process
// ends, however that ends.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	into := []string{"netns", "exec", h.space} // ip becomes the command
	if h.resolv != "" {
		// ip gives each command its own view of the mounts, so this one is gone with it.
		into = append(into, "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, h.resolv)
	}
	cmd := exec.Command("ip", slices.Concat(into, []string{name}, args)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// UseDNS has the commands that are made from now on ask the host server, at
// port 53, what names mean.
func (h *Host) UseDNS(t testing.TB, server *Host) {
	t.Helper()
	h.resolv = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(h.resolv, []byte("nameserver "+server.IP()+"\n"), 0o644); err != nil {
		t.Fatalf("netns: %v", err)
	}
}

// ListenPacket is Listen for datagrams.
func (h *Host) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = h.Do(func() error {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	return c, err
}

// Do calls f on a thread that is on this host. Sockets that f makes itself stay
// there; goroutines that it starts are elsewhere.
func (h *Host) Do(f func() error) error { return inside(h.space, f) }

// Dial connects from this host. addr has to be an address, not a name. It fits
// grpc.WithContextDialer, for tcp.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return h.DialNetwork(ctx, "tcp", addr)
}

// DialNetwork is Dial for any kind of network.
func (h *Host) DialNetwork(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Listen listens for connections on this host.
func (h *Host) Listen(network, addr string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

func spacePath(space string) string { return filepath.Join("/run/netns", space) }

// inside calls f on a thread in a namespace. A thread that cannot find back is
// given up.
func inside(space string, f func() error) error {
	there, err := os.Open(spacePath(space))
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer there.Close()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			failed <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter namespace %s: %w", space, err)
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			// Not left to die: commands get their death signal when the thread that started them ends.
			runtime.UnlockOSThread()
		}
		failed <- err
	}()
	return <-failed
}
