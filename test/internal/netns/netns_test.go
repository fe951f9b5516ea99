package netns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	roleVariable = "NETNS_TEST_ROLE"
	echoPort     = 7
)

// TestMain makes the test binary the small programs that the tests run.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "echo":
		fmt.Fprintln(os.Stderr, echo())
	case "owner":
		fmt.Fprintln(os.Stderr, owner())
	}
	os.Exit(1)
}

// echo sends back what comes by TCP and UDP, and tells on stdout when it is
// there.
func echo() error {
	addr := fmt.Sprintf(":%d", echoPort)
	packets, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buf[:n], from)
		}
	}()
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// owner makes a network with a process in it, tells about them, and waits to
// be killed.
func owner() error {
	n, err := open(1)
	if err != nil {
		return err
	}
	h, err := n.add("a")
	if err != nil {
		return err
	}
	cmd := h.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(h.space, cmd.Process.Pid)
	select {}
}

func role(cmd *exec.Cmd, name string) *exec.Cmd {
	cmd.Env = append(os.Environ(), roleVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// serveEcho starts the echo server on a host, and returns once it listens.
func serveEcho(t *testing.T, h *Host) *exec.Cmd {
	t.Helper()
	cmd := role(h.Command(os.Args[0]), "echo")
	firstLine(t, cmd)
	return cmd
}

func firstLine(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the process said nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

func dial(t *testing.T, from *Host, network string, to *Host) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := from.DialNetwork(ctx, network, to.Addr(echoPort))
	if err != nil {
		t.Fatalf("dial %s from %s: %v", to, from, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// roundTrip sends b and expects it back.
func roundTrip(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	go func() { _, _ = c.Write(b) }()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("read the echo: %v", err)
	}
	if !bytes.Equal(got, b) {
		t.Fatalf("the echo of %d bytes differs", len(b))
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	dice := rand.NewChaCha8([32]byte{1})
	_, _ = dice.Read(b)
	return b
}

// await waits for counters that a test has caused to move.
func await(t *testing.T, n *Net, from, to *Host, ok func(Counters) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := n.Await(ctx, from, to, ok); err != nil {
		t.Fatalf("%s to %s: %+v: %v", from, to, n.Counters(from, to), err)
	}
}

func TestHosts(t *testing.T) {
	n := New(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	serveEcho(t, b)
	roundTrip(t, dial(t, a, "tcp", b), noise(8<<20))
	roundTrip(t, dial(t, a, "udp", b), noise(1400))
	roundTrip(t, dial(t, b, "tcp", b), []byte("to itself"))
	c, err := b.DialNetwork(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", echoPort))
	if err != nil {
		t.Fatalf("no loopback: %v", err)
	}
	roundTrip(t, c, []byte("by the loopback"))
	_ = c.Close()

	// The other direction: the test listens on a host, and a program of another connects.
	l, err := a.Listen("tcp", a.Addr(echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	got, err := io.ReadAll(dial(t, b, "tcp", a))
	if err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if counted := n.Counters(a, b); counted.Delivered == 0 || counted.Dropped != 0 {
		t.Errorf("%+v", counted)
	}
}

// TestCut: what is under way waits for the end of a partition, in which the
// hosts on one side still reach each other.
func TestCut(t *testing.T) {
	n := New(t)
	a, b, c := n.Host(t, "a"), n.Host(t, "b"), n.Host(t, "c")
	for _, h := range n.Hosts() {
		serveEcho(t, h)
	}
	ab := dial(t, a, "tcp", b)
	roundTrip(t, ab, []byte("before"))
	for name, cut := range map[string]func(){
		"isolated":    func() { n.Isolate(a) },
		"partitioned": func() { n.Partition([]*Host{a}, []*Host{b, c}) },
	} {
		cut()
		before := n.Counters(a, b)
		if _, err := ab.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
		await(t, n, a, b, func(x Counters) bool { return x.Dropped > before.Dropped })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := a.Dial(ctx, b.Addr(echoPort)); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
			t.Errorf("%s: dial: %v, want it to hang", name, err)
		}
		cancel()
		roundTrip(t, dial(t, b, "tcp", c), []byte("the others"))
		if got := n.Counters(a, b); got.Delivered != before.Delivered {
			t.Errorf("%s: %d frames got through", name, got.Delivered-before.Delivered)
		}
		n.Heal()
		got := make([]byte, len(name))
		if _, err := io.ReadFull(ab, got); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestOneWay(t *testing.T) {
	n := New(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	serveEcho(t, b)
	c := dial(t, a, "udp", b)
	n.Set(b, a, Cut)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await(t, n, b, a, func(x Counters) bool { return x.Dropped == 1 }) // the answer
	if got, back := n.Counters(a, b), n.Counters(b, a); got != (Counters{Delivered: 1}) || back.Delivered != 0 {
		t.Errorf("there %+v, back %+v", got, back)
	}
}

func TestDelay(t *testing.T) {
	n := New(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	serveEcho(t, b)
	const delay = 20 * time.Millisecond
	n.SetBoth(a, b, Fault{Delay: delay, Jitter: delay})
	c := dial(t, a, "udp", b)
	began := time.Now()
	for i := range byte(20) {
		if _, err := c.Write([]byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1)
	for i := range byte(20) {
		if _, err := c.Read(buf); err != nil || buf[0] != i {
			t.Fatalf("datagram %d, want %d: %v", buf[0], i, err)
		}
	}
	if took := time.Since(began); took < 2*delay {
		t.Errorf("there and back in %v", took)
	}
}

func TestLoss(t *testing.T) {
	n := New(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	serveEcho(t, b)
	c := dial(t, a, "tcp", b)
	n.SetBoth(a, b, Fault{Loss: 0.05})
	roundTrip(t, c, noise(1<<20))
	n.SetBoth(a, b, Fault{Loss: 0.3})
	u := dial(t, a, "udp", b)
	before := n.Counters(a, b)
	for range 100 {
		_, _ = u.Write([]byte("x"))
	}
	sum := func(x Counters) uint64 { return x.Delivered + x.Dropped - before.Delivered - before.Dropped }
	await(t, n, a, b, func(x Counters) bool { return sum(x) >= 100 })
	if lost := n.Counters(a, b).Dropped - before.Dropped; lost < 10 || lost > 60 {
		t.Errorf("%d of 100 lost", lost)
	}
}

func TestReorder(t *testing.T) {
	n := New(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	serveEcho(t, b)
	n.Set(a, b, Fault{Delay: 50 * time.Millisecond, Reorder: 0.5})
	c := dial(t, a, "udp", b)
	const count = 50
	for i := range byte(count) {
		if _, err := c.Write([]byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	buf := make([]byte, 1)
	for range count {
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("after %d datagrams: %v", len(got), err)
		}
		got = append(got, buf[0])
	}
	inversions := 0
	for i := 1; i < count; i++ {
		if got[i] < got[i-1] {
			inversions++
		}
	}
	if inversions == 0 {
		t.Errorf("all in order: %v", got)
	}
	n.Heal()
	stream := dial(t, a, "tcp", b)
	n.Set(a, b, Fault{Delay: time.Millisecond, Reorder: 0.2})
	roundTrip(t, stream, noise(1<<20))
}

// TestClose: nothing is left of a network, nor of what ran in it.
func TestClose(t *testing.T) {
	n, err := open(1)
	if err != nil {
		t.Fatal(err)
	}
	h, err := n.add("a")
	if err != nil {
		t.Fatal(err)
	}
	cmd := serveEcho(t, h)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended by %v", err)
	}
	for _, space := range []string{n.space, h.space} {
		if exists(space) {
			t.Errorf("%s is still there", space)
		}
	}
}

// TestKilled: the process that made a network is killed. What ran in it dies,
// and the next network removes it.
func TestKilled(t *testing.T) {
	cmd := role(exec.Command(os.Args[0]), "owner")
	var space string
	var pid int
	if _, err := fmt.Sscan(firstLine(t, cmd), &space, &pid); err != nil {
		t.Fatal(err)
	}
	other := New(t)
	if !exists(space) || !exists(other.space) {
		t.Fatalf("%s is swept while its owner lives", space)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(2 * time.Minute); syscall.Kill(pid, 0) == nil && !zombie(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its owner", pid)
		}
		time.Sleep(time.Millisecond) // a process of somebody else: there is nothing to wait on
	}
	if !exists(space) {
		t.Fatalf("%s is gone without being swept", space)
	}
	New(t)
	if exists(space) {
		t.Errorf("%s is still there", space)
	}
}

// zombie says whether a process is dead, and only not yet waited for.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// TestMissing: the test that cannot have hosts is told why.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := open(1); err == nil || !strings.Contains(err.Error(), "install iproute2") {
		t.Error(err)
	}
}
