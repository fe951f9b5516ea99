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
	"syscall"

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
}

// IP is the host's address.
func (h *Host) IP() string { return h.addr.String() }

// Addr is a port of the host, as host:port.
func (h *Host) Addr(port int) string { return fmt.Sprintf("%s:%d", h.addr, port) }

func (h *Host) String() string { return h.Name }

// Command is a process on this host. It gets SIGKILL when the test process
// ends, however that ends.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.space, name}, args...)...) // ip becomes the command
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
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
