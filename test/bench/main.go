package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

// row is one line of the table.
type row struct {
	name, unit string
	run        func(context.Context, *dataset) (figures, error)
}

// rows run in this order on each server; create fills what the others read.
var rows = []row{
	{"create", "µs CPU/op", rowCreate},
	{"update", "µs CPU/op", rowUpdate},
	{"get", "µs CPU/op", rowGet},
	{"count", "µs CPU/op", rowCount},
	{"pages", "ms CPU/MB", rowPages},
	{"list", "ms CPU/MB", rowList},
	{"watch", "µs CPU/event", rowWatch},
	{"idle", "ms CPU/s", rowIdle},
	{"compact", "ms CPU", rowCompact},
	{"defrag", "ms longest stall", rowDefrag},
	{"restart", "ms to first answer", rowRestart},
}

func main() {
	var (
		servers = flag.String("servers", "floor,etcd,shim", "what to measure: floor, etcd, shim, kine")
		only    = flag.String("rows", "", "only these rows, comma-separated (create always runs)")
		pods    = flag.Int("pods", 20_000, "pods of 3,000 bytes")
		leases  = flag.Int("leases", 5_000, "node leases of 400 bytes")
		out     = flag.String("json", "", "write the raw figures to this file")
		profile = flag.String("profile", "", "write a CPU profile of shim's first seconds of each row into this folder")
		floorAt = flag.String("serve-floor", "", "internal: serve as the floor on this address")
	)
	flag.Parse()
	if *floorAt != "" {
		exitOn(serveFloor(*floorAt))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var want []string
	if *only != "" {
		want = strings.Split(*only, ",")
	}
	rep := newReport(*pods, *leases)
	for _, name := range strings.Split(*servers, ",") {
		exitOn(measure(ctx, rep, name, *pods, *leases, want, *profile))
	}
	rep.print(os.Stdout)
	if *out != "" {
		exitOn(rep.write(*out))
	}
}

// measure runs the rows on one server, started for them and ended after them.
func measure(ctx context.Context, rep *report, name string, pods, leases int, want []string, profile string) error {
	dir, err := os.MkdirTemp("", "shim-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newServer(name, dir)
	if err != nil {
		return err
	}
	if name == "shim" && profile != "" {
		s.args = append(s.args, "--enable-pprof")
	}
	if _, err := s.start(); err != nil {
		return explain(s, err)
	}
	defer s.stop()
	empty, err := s.rss()
	if err != nil {
		return err
	}
	rep.add(name, "empty RSS", "MB", figures{Value: float64(empty) / 1e6})
	d := newDataset(s, pods, leases)
	for _, r := range rows {
		if r.name != "create" && len(want) > 0 && !slices.Contains(want, r.name) {
			continue
		}
		if name == "floor" && !floorRows[r.name] {
			continue
		}
		fmt.Fprintf(os.Stderr, "%-6s %s\n", name, r.name)
		done := s.profile(ctx, profile, r.name)
		f, err := r.run(ctx, d)
		err = errors.Join(err, done())
		if err != nil {
			return explain(s, fmt.Errorf("%s: %s: %w", name, r.name, err))
		}
		rep.add(name, r.name, r.unit, f)
	}
	return nil
}

func explain(s *server, err error) error {
	log, _ := os.ReadFile(filepath.Clean(s.dir + ".log"))
	if len(log) > 2000 {
		log = log[len(log)-2000:]
	}
	return fmt.Errorf("%w\n%s", err, log)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
