package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// profileSeconds is how long a row is profiled; a shorter row's profile has
// idle time at its end.
const profileSeconds = 2

// profile begins to take a CPU profile of shim, of each member if there are
// several, and answers a function that waits for it. With no folder it does
// nothing: a profile costs some CPU.
func (s *server) profile(ctx context.Context, dir string, r row) (wait func() error) {
	if dir == "" || s.name != "shim" || r.ends {
		return func() error { return nil }
	}
	done := make(chan error, len(s.members))
	for i, m := range s.members {
		name := r.name
		if len(s.members) > 1 {
			name = fmt.Sprintf("%s-%d", name, i)
		}
		go func() {
			done <- m.Fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), filepath.Join(dir, name+".pprof"))
		}()
	}
	return func() (err error) {
		for range s.members {
			err = errors.Join(err, <-done)
		}
		return err
	}
}
