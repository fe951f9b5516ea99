package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// runGroup starts the group's servers on fresh data dirs, runs each row on each
// of them in turn, the others paused, and ends them.
func runGroup(ctx context.Context, rep *report, g group, o options) (err error) {
	dir, err := os.MkdirTemp("", "shim-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var sets []*dataset
	defer func() {
		for _, d := range sets {
			d.s.kill()
		}
	}()
	for _, name := range g.servers {
		s, err := newServer(name, dir, g.size())
		if err != nil {
			return err
		}
		if name == "shim" && o.profile != "" {
			for _, m := range s.members {
				m.Args = append(m.Args, "--enable-pprof")
			}
		}
		d := newDataset(s, rep, g, o)
		sets = append(sets, d)
		if _, err := s.start(); err != nil {
			return explain(s, err)
		}
		if g.size() == 1 {
			if err := emptyRSS(ctx, d); err != nil {
				return explain(s, err)
			}
		}
		if err := s.pause(); err != nil {
			return err
		}
	}
	for _, r := range g.rows {
		for _, d := range sets {
			if slices.Contains(r.skip, d.s.name) {
				continue
			}
			if err := runRow(ctx, d, r, o.profile); err != nil {
				return explain(d.s, fmt.Errorf("%s: %s: %w", d.s.name, r.name, err))
			}
		}
	}
	return nil
}

// runRow measures one row of one server. What a server does not serve is left
// out.
func runRow(ctx context.Context, d *dataset, r row, profile string) error {
	begin := time.Now()
	if err := d.s.resume(ctx); err != nil {
		return err
	}
	if r.settle {
		if err := d.s.settle(ctx); err != nil {
			return err
		}
	}
	done := d.s.profile(ctx, profile, r)
	err := r.run(ctx, d)
	if status.Code(err) == codes.Unimplemented {
		fmt.Fprintf(os.Stderr, "%s %s does not serve %s\n", time.Now().Format(time.TimeOnly), d.s.name, r.name)
		err = nil
	}
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s %-6s %-15s %5.1f s\n", time.Now().Format(time.TimeOnly), d.s.name, r.name, time.Since(begin).Seconds())
	return d.s.pause()
}

// emptyRSS is the memory of a server that has just started, in the first group
// that it is in.
func emptyRSS(ctx context.Context, d *dataset) error {
	const name = "empty server, RSS"
	if _, ok := d.rep.Figures[name][d.s.name]; ok {
		return nil
	}
	if err := d.s.settle(ctx); err != nil {
		return err
	}
	empty, err := d.s.rss()
	d.rep.add(d.s.name, name, "MB", figures{Value: float64(empty) / 1e6, RSS: empty})
	return err
}

func explain(s *server, err error) error {
	for _, m := range s.members {
		err = fmt.Errorf("%w\n%s", err, m.Log())
	}
	return err
}
