package main

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

// TestSignalWhileOpening: who is told to stop does not wait until the data is open, and what opening came to counts otherwise.
func TestSignalWhileOpening(t *testing.T) {
	stop, cancel := context.WithCancelCause(context.Background())
	failed := errors.New("no such disk")
	if err := unlessStopped(stop, func() error { return failed }); err != failed {
		t.Errorf("an error of opening: %v", err)
	}
	if err := unlessStopped(stop, func() error { return nil }); err != nil {
		t.Errorf("opened: %v", err)
	}
	hang, begun := make(chan struct{}), make(chan struct{})
	defer close(hang)
	go func() {
		<-begun
		cancel(signalled{syscall.SIGTERM})
	}()
	err := unlessStopped(stop, func() error { close(begun); <-hang; return nil })
	if !errors.As(err, new(signalled)) {
		t.Errorf("told to stop: %v", err)
	}
}
