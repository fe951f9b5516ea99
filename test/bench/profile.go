package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
			done <- m.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), filepath.Join(dir, name+".pprof"))
		}()
	}
	return func() (err error) {
		for range s.members {
			err = errors.Join(err, <-done)
		}
		return err
	}
}

func (m *member) fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.client+url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
