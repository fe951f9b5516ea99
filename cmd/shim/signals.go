package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	exitSignal = 128 // and the number of the signal, as shells say it
	deathMax   = time.Second
)

// signalled is why a member stops that was told to.
type signalled struct{ os.Signal }

func (s signalled) Error() string { return s.String() }

// notifySignals is a context that ends with the first SIGTERM or SIGINT, with
// signalled as its cause; the next ones do nothing. Other signals do what they do
// to any process: SIGHUP ends it at once, as it does etcd.
func notifySignals() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(bg)
	came := make(chan os.Signal, 1)
	signal.Notify(came, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case s := <-came:
			cancel(signalled{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		cancel(nil)
	}
}

// dieOf ends the process by the signal that has told it to stop, as etcd does: so
// who waits for it knows why it ended. The kernel does not do that to the first
// process of a container, which exits with 0.
func dieOf(err error) int {
	var s signalled
	if !errors.As(err, &s) {
		return exitError
	}
	if number, ok := s.Signal.(syscall.Signal); ok && os.Getpid() != 1 {
		signal.Reset(number)
		_ = syscall.Kill(os.Getpid(), number)
		time.Sleep(deathMax) // it ends us before, unless who started us has it ignored
		return exitSignal + int(number)
	}
	return exitOK
}
