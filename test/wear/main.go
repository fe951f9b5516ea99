package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	var (
		sizes   = flag.String("nodes", "5,100,5000", "sizes of clusters")
		servers = flag.String("servers", "etcd,shim", "which servers")
		length  = flag.Duration("length", time.Hour, "how much of the hour is played")
		dir     = flag.String("dir", "", "folder for the data, on the disk to look at (default the system's for temporary files)")
		verbose = flag.Bool("v", false, "tell of each checkpoint")
	)
	flag.Parse()
	fmt.Println("| nodes | rows written | of client data, MB | server | to disk, MB | bytes per byte | bytes per row | fdatasyncs per row |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, size := range strings.Split(*sizes, ",") {
		nodes, err := strconv.Atoi(size)
		exitOn(err)
		for _, name := range strings.Split(*servers, ",") {
			r, err := wear(name, *dir, nodes, *length, *verbose)
			exitOn(err)
			fmt.Println(r)
		}
	}
}

// result is what one server did to its disk.
type result struct {
	server string
	nodes  int
	rows   int
	bytes  int64 // of client data
	used   used
}

func (r result) String() string {
	return fmt.Sprintf("| %d | %d | %.1f | %s | %.1f | %.1f | %d | %.2f |", r.nodes, r.rows, float64(r.bytes)/1e6, r.server,
		float64(r.used.bytes)/1e6, float64(r.used.bytes)/float64(r.bytes), r.used.bytes/int64(r.rows), float64(r.used.syncs)/float64(r.rows))
}

// wear plays the hour on one server.
func wear(name, dir string, nodes int, length time.Duration, verbose bool) (r result, err error) {
	dir, err = os.MkdirTemp(dir, "shim-wear-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	var s server
	switch name {
	case "shim":
		s, err = startShim(dir, verbose)
	case "etcd":
		s, err = startEtcd(dir, perSecond(nodes))
	default:
		err = fmt.Errorf("no such server: %q", name)
	}
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p := &player{ctx: context.Background(), server: s, world: newWorld(nodes), revisions: make(map[string]int64)}
	if err := p.fill(nodes); err != nil {
		return r, err
	}
	before, err := s.Used()
	if err != nil {
		return r, err
	}
	p.rows, p.bytes = 0, 0
	if err := p.play(nodes, length); err != nil {
		return r, err
	}
	after, err := s.Used()
	return result{name, nodes, p.rows, p.bytes, used{after.bytes - before.bytes, after.syncs - before.syncs}}, err
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "wear:", err)
		os.Exit(1)
	}
}
