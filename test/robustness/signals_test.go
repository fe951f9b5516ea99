package robustness

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// TestTerminate: SIGTERM under load ends with code 0, and nothing that anybody was told is lost.
func TestTerminate(t *testing.T) {
	t.Parallel()
	storm(t, 3, func(s *server, _ int) {
		if code := s.signal(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		s.start()
	})
}

// TestFreeze: a process that was stopped for longer than its election timeout, as in a virtual machine that moves, goes on with all
// its clients.
func TestFreeze(t *testing.T) {
	t.Parallel()
	storm(t, 2, func(s *server, round int) {
		if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond) // the frozen time itself
		defer cancel()
		<-ctx.Done()
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	})
}
