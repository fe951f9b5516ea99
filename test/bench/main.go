package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	var (
		servers  = flag.String("servers", "floor,etcd,shim", "what to measure: floor, etcd, shim, kine")
		only     = flag.String("rows", "", "only these rows and groups, comma-separated (what fills their data set runs too)")
		pods     = flag.Int("pods", 20_000, "pods of 3,000 bytes in the first group")
		leases   = flag.Int("leases", 5_000, "node leases of 400 bytes in the first group")
		quick    = flag.Bool("quick", false, "fewer operations, and only the groups that take little time")
		out      = flag.String("json", "", "write the raw figures to this file")
		from     = flag.String("from", "", "measure nothing: report what this file of -json holds")
		picture  = flag.String("svg", "", "draw the comparison into this file")
		markdown = flag.Bool("markdown", false, "print the README's table instead of the full one")
		readme   = flag.String("readme", "", "replace the table in this file")
		profile  = flag.String("profile", "", "write a CPU profile of shim's first seconds of each row into this folder")
		floorAt  = flag.String("serve-floor", "", "internal: serve as the floor on this address")
	)
	flag.Parse()
	if *floorAt != "" {
		exitOn(serveFloor(*floorAt))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{servers: list(*servers), only: list(*only), pods: *pods, leases: *leases, quick: *quick, profile: *profile}
	rep, err := measureOrRead(ctx, o, *from)
	if rep == nil {
		exitOn(err)
	}
	if *markdown {
		rep.markdown(os.Stdout)
	} else {
		rep.print(os.Stdout)
	}
	if *out != "" {
		exitOn(rep.write(*out))
	}
	exitOn(err) // part of a run is printed and kept, not shown to the world
	if *picture != "" {
		exitOn(os.WriteFile(*picture, rep.svg(), 0o644))
	}
	if *readme != "" {
		exitOn(rep.table().PutInto(*readme))
	}
}

// measureOrRead answers a report even with an error, if there is something in
// it: the groups before the failure.
func measureOrRead(ctx context.Context, o options, from string) (*report, error) {
	if from != "" {
		return readReport(from)
	}
	if names := unknown(o); len(names) > 0 {
		return nil, fmt.Errorf("no such row or group: %s", strings.Join(names, ", "))
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return nil, err
		}
	}
	rep := newReport(o)
	for _, g := range plan(o) {
		if err := runGroup(ctx, rep, g, o); err != nil {
			rep.judge()
			return rep, err
		}
	}
	rep.judge()
	return rep, nil
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
