package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kubeshim/shim/test/internal/measure"
)

// headlines are the rows of the README's table, with the words that it has for
// them; those with a picture are drawn too.
var headlines = []struct {
	row, words string
	picture    bool
}{
	{"create", "create, µs CPU", true},
	{"update", "guarded update, µs CPU", true},
	{"create, 1 in flight", "creates/s, one after the other", false},
	{"create, 64 in flight", "... 64 in flight", false},
	{"create, 1000 in flight", "... 1,000 in flight", false},
	{"update, 100 kB", "update of 100 kB, µs CPU", false},
	{"get", "linearizable get, µs CPU", true},
	{"count", "count of 20,000 keys, µs CPU", true},
	{"count, 200k", "... of 200,000", false},
	{"count, 1M", "... of 1,000,000", false},
	{"first page", "first page of 500, ms CPU/MB", true},
	{"later pages", "later pages, ms CPU/MB", true},
	{"later pages, 200k", "later pages of 200,000 objects, ms CPU/MB", true},
	{"list", "whole list of 60 MB, ms CPU/MB", true},
	{"list, RSS it adds", "... four at a time add to RSS, % of the data", false},
	{"stream", "RangeStream of 60 MB, ms CPU/MB", false},
	{"watch, 200 on one prefix", "watch, 200 on one prefix, µs CPU/event", true},
	{"watch, 4 on each of 50 prefixes", "watch, 4 on each of 50 prefixes, µs CPU/event", true},
	{"watch, 5,000 mostly idle", "watch, 5,000 mostly idle, µs CPU/event", false},
	{"watch at 100k events/s", "watch at 100,000 events/s, p99 ms", true},
	{"idle, 20 heartbeats/s", "20 heartbeats/s, ms CPU/s", true},
	{"idle, heartbeat p50", "heartbeat p50, ms", true},
	{"idle, written", "bytes written per heartbeat", true},
	{"compaction", "compaction of 80,000 dead versions, ms CPU", true},
	{"compaction, write p99", "... p99 of writes meanwhile, ms", false},
	{"defragmentation, longest stall", "defragmentation, longest stall of a writer, ms", true},
	{"restart", "start after kill -9, 25,000 objects, ms", true},
	{"restart, 200k", "start after kill -9, 200,000 objects, ms", true},
	{"memory, 200k", "RSS of 200,000 objects of 3 kB, to their bytes", true},
	{"disk, 200k", "... on disk, MB", false},
	{"empty server, RSS", "empty server, RSS in MB", true},
	{"create, 3 members", "three members: create, µs CPU of all", true},
	{"update, 3 members", "... guarded update", true},
	{"update through a follower, 3 members", "... guarded update through a follower", true},
	{"updates/s, 3 members", "... guarded updates/s, 64 in flight", false},
	{"get through the leader, 3 members", "... linearizable get through the leader", true},
	{"get through a follower, 3 members", "... linearizable get through a follower", true},
	{"idle, 20 heartbeats/s, 3 members", "... 20 heartbeats/s, ms CPU/s of all", true},
	{"leader killed, 3 members", "... leader killed, ms without a write", true},
	{"leader stopped, 3 members", "... leader stopped, ms without a write", true},
}

var titles = map[string]string{"floor": "floor", "etcd": "etcd 3.7.3", "kine": "kine 0.17.5", "shim": "shim"}

// order is how tables and picture list the servers.
func (r *report) order() []string {
	return slices.DeleteFunc(slices.Clone(everyone), func(s string) bool { return !slices.Contains(r.Servers, s) })
}

// markdown writes the README's table.
func (r *report) markdown(w io.Writer) {
	fmt.Fprint(w, "| work |")
	servers := r.order()
	for _, s := range servers {
		fmt.Fprintf(w, " %s |", titles[s])
	}
	fmt.Fprintln(w, " shim / etcd | shim / floor |")
	fmt.Fprintln(w, "|---|"+strings.Repeat("---|", len(servers)+2))
	for _, h := range headlines {
		if r.Figures[h.row] == nil {
			continue
		}
		fmt.Fprintf(w, "| %s |", h.words)
		for _, s := range servers {
			fmt.Fprintf(w, " %s |", r.figure(h.row, s))
		}
		fmt.Fprintf(w, " %s | %s |\n", r.ratio(h.row, "shim", "etcd"), r.ratio(h.row, "shim", "floor"))
	}
}

// table is the README's, by its name there.
func (r *report) table() measure.Table { return measure.Table{Name: "table", Write: r.markdown} }
