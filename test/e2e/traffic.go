//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// writer creates configmaps through one apiserver after the other and keeps
// what was acknowledged.
type writer struct {
	cancel context.CancelFunc
	done   chan struct{}
	more   chan struct{} // holds an element when something was acknowledged

	mu    sync.Mutex
	acked map[string]string // name -> UID
}

// startWriter writes until stop, at the latest until the test ends.
func (c *cluster) startWriter(prefix string) *writer {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	w := &writer{cancel: cancel, done: make(chan struct{}), more: make(chan struct{}, 1), acked: map[string]string{}}
	go func() {
		defer close(w.done)
		for i := 0; ctx.Err() == nil; i++ {
			w.create(ctx, c.apiservers[i%len(c.apiservers)], fmt.Sprintf("%s-%04d", prefix, i))
		}
	}()
	c.t.Cleanup(w.stop)
	return w
}

func (w *writer) create(ctx context.Context, s *apiserver, name string) {
	out, err := s.try(ctx, "", "create", "configmap", name, "-n", "default",
		"--from-literal=n="+name, "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return // whether it was written is not known
	}
	w.mu.Lock()
	w.acked[name] = out
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// await waits until n more were acknowledged than when it was called.
func (w *writer) await(t *testing.T, n int) {
	t.Helper()
	limit := time.After(settleLimit)
	for want := w.count() + n; w.count() < want; {
		select {
		case <-w.more:
		case <-limit:
			t.Fatalf("the writer does not get on: %d acknowledged, want %d", w.count(), want)
		}
	}
}

func (w *writer) stop() {
	w.cancel()
	<-w.done
}

// check fails when something acknowledged is not there. The writer has stopped.
func (w *writer) check(t *testing.T, c *cluster) {
	t.Helper()
	have := map[string]string{}
	for _, o := range c.list("configmaps", "-n", "default") {
		have[o.Metadata.Name] = o.Metadata.UID
	}
	for name, uid := range w.acked {
		if have[name] != uid {
			t.Errorf("%s was acknowledged with uid %s, now %q", name, uid, have[name])
		}
	}
	t.Logf("%d acknowledged objects are all there", len(w.acked))
}

// reader reads through one apiserver after the other. A read that begins when
// another has been answered must not be older than it.
type reader struct {
	cancel context.CancelFunc
	done   chan struct{}
	// What follows is valid once done is closed.
	reads int
	last  int64
	err   error
}

// startReader reads until stop, at the latest until the test ends.
func (c *cluster) startReader() *reader {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	r := &reader{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for i := 0; ctx.Err() == nil && r.err == nil; i++ {
			r.read(ctx, c.apiservers[i%len(c.apiservers)])
		}
	}()
	c.t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *reader) read(ctx context.Context, s *apiserver) {
	l, err := s.list(ctx, "--raw", "/api/v1/namespaces/default/configmaps?limit=1")
	if err != nil {
		return // a leader is being elected; whoever writes tells when it does not end
	}
	at := version(l.Metadata)
	if at < r.last {
		r.err = fmt.Errorf("%s answers with resource version %d after %d had been read", s.name, at, r.last)
		return
	}
	r.reads, r.last = r.reads+1, at
}

// stop ends the reader and fails when it read what was older.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	<-r.done
	if r.err != nil {
		t.Error(r.err)
	}
	if r.reads == 0 {
		t.Error("the reader has read nothing")
	}
	t.Logf("%d reads, none older than the one before", r.reads)
}

// scaler scales a Deployment up and down.
type scaler struct {
	cancel context.CancelFunc
	done   chan struct{}
	scaled int // times it got there; valid once done is closed
}

// startScaler goes on until stop, at the latest until the test ends. A size
// that is not reached within seconds is left for the next one.
func (c *cluster) startScaler(name string, sizes ...int) *scaler {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	s := &scaler{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for i := 0; ctx.Err() == nil; i++ {
			via := c.apiservers[i%len(c.apiservers)]
			if via.scale(ctx, name, sizes[i%len(sizes)]) != nil {
				continue // a leader is being elected; whoever writes tells when it does not end
			}
			if _, err := via.try(ctx, "", "rollout", "status", "deployment/"+name, "-n", "default", "--timeout=5s"); err == nil {
				s.scaled++
			}
		}
	}()
	c.t.Cleanup(func() { cancel(); <-s.done })
	return s
}

func (s *apiserver) scale(ctx context.Context, name string, to int) error {
	_, err := s.try(ctx, "", "scale", "deployment/"+name, "-n", "default", fmt.Sprintf("--replicas=%d", to))
	return err
}

// stop leaves the Deployment at any size.
func (s *scaler) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	<-s.done
	if s.scaled == 0 {
		t.Error("the deployment was never scaled")
	}
	t.Logf("scaled %d times", s.scaled)
}
