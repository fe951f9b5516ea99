package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// profileSeconds is how long a row is profiled; a shorter row's profile has
// idle time at its end.
const profileSeconds = 2

// profile begins to take a CPU profile of shim and answers a function that
// waits for it. With no folder it does nothing: a profile costs some CPU.
func (s *server) profile(ctx context.Context, dir, row string) (wait func() error) {
	if dir == "" || s.name != "shim" || strings.HasPrefix(row, "restart") {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		done <- s.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), filepath.Join(dir, row+".pprof"))
	}()
	return func() error { return <-done }
}

func (s *server) fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+url, nil)
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
