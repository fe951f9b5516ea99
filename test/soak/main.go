package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// options are what the flags say.
type options struct {
	length time.Duration
	rounds int
	rate   float64
	pods   int
	nodes  int
	quota  int64
	// fillPerSecond are the creates of fillBytes with which the quota is filled.
	fillPerSecond float64
	flatMax       float64
	flags         []string
	only          string
	link          int
	binary        string
	dir, trace    string
}

func main() {
	var (
		o       options
		servers = flag.String("servers", "shim", "what to soak, one after the other: shim, etcd")
		more    = flag.String("args", "", "more flags of the server's, separated by blanks")
		out     = flag.String("json", "", "write the raw figures to this file")
		from    = flag.String("from", "", "run nothing: report what this file of -json holds")
		readme  = flag.String("readme", "", "replace the table in this file")
		be      = flag.String("role", "", "internal: be the clients of this disturbance")
		at      = flag.String("at", "", "internal: of the server at this address")
		every   = flag.Duration("every", 0, "internal: this often")
	)
	flag.DurationVar(&o.length, "length", lengthDefault, "how long it takes; all phases are in proportion")
	flag.IntVar(&o.rounds, "rounds", roundsOfLength, "rounds of all phases, of which 2 belong to the length")
	flag.Float64Var(&o.rate, "rate", 400, "writes a second")
	flag.IntVar(&o.pods, "pods", 10_000, "pods of 3,000 bytes")
	flag.IntVar(&o.nodes, "nodes", 2_000, "node leases of 400 bytes")
	flag.Int64Var(&o.quota, "quota", 38<<20, "the server's --quota-backend-bytes; etcd's, whose quota is on its file, has three times as many")
	flag.Float64Var(&o.fillPerSecond, "fill", 40, "creates of 16 kB a second with which the quota is filled; more where time is short")
	flag.StringVar(&o.only, "phases", "", "only the phases whose name has one of these, separated by commas, and quiet ones before and behind each")
	flag.IntVar(&o.link, "link", linkDefault, "Mbit/s of the link that the readers of lists share, and of that of snapshots; 0: none, as fast as the machine can")
	flag.Float64Var(&o.flatMax, "flat", 1.25, "how much memory and disk of the last rounds may be, to the first ones'")
	flag.StringVar(&o.binary, "program", "", "the program to soak instead of the one of this tree")
	flag.StringVar(&o.dir, "dir", "", "where the data dir is made; default the system's folder for temporary files")
	flag.StringVar(&o.trace, "trace", "", "write when things began and which writes were slow into a file that begins with this name")
	flag.Parse()
	o.flags = strings.Fields(*more)
	if *be != "" {
		exitOn(beChild(*be, *at, *every, newLink(o.link*mbit)))
		return
	}
	debug.SetGCPercent(400) // the client's pauses are in the figures
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rep, err := soakOrRead(ctx, strings.Split(*servers, ","), o, *from)
	if len(rep) > 0 {
		rep.print(os.Stdout)
	}
	exitOn(err)
	if *out != "" {
		exitOn(rep.write(*out))
	}
	for _, r := range rep {
		if why := r.failed(); len(why) > 0 {
			exitOn(fmt.Errorf("%s: %d problems, see above", r.Server, len(why)))
		}
	}
	if *readme != "" {
		exitOn(rep.table().PutInto(*readme))
	}
}

func soakOrRead(ctx context.Context, servers []string, o options, from string) (rep report, err error) {
	if from != "" {
		return readReport(from)
	}
	for _, name := range servers {
		r, err := soakOne(ctx, name, o)
		if err != nil {
			return rep, fmt.Errorf("%s: %w", name, err)
		}
		rep = append(rep, r)
	}
	return rep, nil
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
