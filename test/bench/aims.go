package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kubeshim/shim/test/internal/measure"
)

// aim is a bound on shim's figure of a row, or on its ratio to something.
type aim struct {
	name string
	row  string
	// of says what the figure is divided by: "floor" for the floor's of the same
	// row, "before" for the latency before the work began, "row:NAME" for shim's
	// own of that row, "etcd" for etcd's of the same row; empty for nothing.
	of    string
	bound float64
	// least: the bound is the smallest value, not the largest.
	least bool
}

// aims are those of the design. A flat cost may rise by a fourth with the
// number of objects: caches of the processor are in it, the floor's rise beside
// it says how much.
var aims = []aim{
	{name: "create", row: "create", of: "floor", bound: 1.6},
	{name: "update", row: "update", of: "floor", bound: 1.6},
	{name: "get", row: "get", of: "floor", bound: 1.35},
	{name: "count", row: "count", of: "floor", bound: 1.5},
	{name: "count, flat to 200k keys", row: "count, 200k", of: "row:count", bound: 1.25},
	{name: "count, flat to 1M keys", row: "count, 1M", of: "row:count", bound: 1.25},
	{name: "first page", row: "first page", of: "floor", bound: 1.5},
	{name: "later pages", row: "later pages", of: "floor", bound: 1.5},
	{name: "first page, flat to 200k objects", row: "first page, 200k", of: "row:first page", bound: 1.25},
	{name: "later pages, flat to 200k objects", row: "later pages, 200k", of: "row:later pages", bound: 1.25},
	{name: "whole list", row: "list", of: "floor", bound: 1.25},
	{name: "RSS that four lists add, % of the data", row: "list, RSS it adds", bound: 10},
	{name: "watch fan-out", row: "watch, 200 on one prefix", of: "floor", bound: 1.5},
	{name: "watch at 100k events/s, p99 ms", row: "watch at 100k events/s", bound: 20},
	{name: "idle, ms CPU/s", row: "idle, 20 heartbeats/s", bound: 5},
	{name: "idle, B written per heartbeat", row: "idle, written", bound: 5000},
	{name: "idle, heartbeat p50 ms", row: "idle, heartbeat p50", bound: 0.5},
	{name: "compaction, ms CPU", row: "compaction", bound: 200},
	{name: "write p99 during compaction, to that before", row: "compaction, write p99", of: "before", bound: 1.5},
	{name: "start after kill -9, 200k objects, ms", row: "restart, 200k", bound: 600},
	{name: "creates/s with 1,000 in flight, to those with 64", row: "create, 1000 in flight", of: "row:create, 64 in flight", bound: 1, least: true},
	{name: "gets/s with 1,000 in flight, to those with 64", row: "get, 1000 in flight", of: "row:get, 64 in flight", bound: 1, least: true},
	{name: "empty, RSS in MB", row: "empty server, RSS", bound: 25},
	{name: "memory of 200k objects, to their bytes", row: "memory, 200k", bound: 1.3},
	{name: "3 members: update, µs CPU", row: "update, 3 members", bound: 110},
	{name: "3 members: updates/s, to etcd's", row: "updates/s, 3 members", of: "etcd", bound: 2, least: true},
	{name: "3 members: get through the leader, µs CPU", row: "get through the leader, 3 members", bound: 45},
	{name: "3 members: get through a follower, µs CPU", row: "get through a follower, 3 members", bound: 45},
	{name: "3 members: idle, ms CPU/s", row: "idle, 20 heartbeats/s, 3 members", bound: 20},
	{name: "3 members: leader killed, ms without a write", row: "leader killed, 3 members", bound: 2 * electionTimeout},
	{name: "3 members: leader stopped, ms without a write", row: "leader stopped, 3 members", bound: 200},
}

// electionTimeout is the default of --election-timeout in milliseconds.
const electionTimeout = 1000

// verdict is an aim beside what was measured.
type verdict struct {
	Name   string  `json:"name"`
	Figure float64 `json:"figure"`
	Bound  float64 `json:"bound"`
	Least  bool    `json:"least,omitempty"` // the bound is the smallest value
	Met    bool    `json:"met"`
	// Floor is the floor's own figure, where the aim is not a ratio to it.
	Floor *float64 `json:"floor,omitempty"`
}

// judge fills in r.Aims with the aims whose figures were measured.
func (r *report) judge() {
	r.Aims = nil
	for _, a := range aims {
		figure, ok := r.value(a, "shim")
		if !ok {
			continue
		}
		v := verdict{Name: a.name, Figure: figure, Bound: a.bound, Least: a.least, Met: figure <= a.bound}
		if a.least {
			v.Met = figure >= a.bound
		}
		if a.of != "floor" {
			if floor, ok := r.value(a, "floor"); ok {
				v.Floor = &floor
			}
		}
		r.Aims = append(r.Aims, v)
	}
}

// value is what the aim is about, of one server.
func (r *report) value(a aim, server string) (float64, bool) {
	f, ok := r.Figures[a.row][server]
	if !ok {
		return 0, false
	}
	by := 1.0
	switch {
	case a.of == "before":
		by = f.Before.Seconds() * 1e3
	case a.of == "floor", a.of == "etcd":
		by = r.Figures[a.row][a.of].Value
	case len(a.of) > 4:
		by = r.Figures[a.of[len("row:"):]][server].Value
	}
	return f.Value / by, by > 0
}

func (r *report) printAims(w io.Writer) {
	if len(r.Aims) == 0 {
		return
	}
	met := 0
	fmt.Fprintln(w, "\naims")
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, v := range r.Aims {
		said, sign := "NOT met", "<="
		if v.Met {
			said = "met"
			met++
		}
		if v.Least {
			sign = ">="
		}
		floor := ""
		if v.Floor != nil {
			floor = "floor: " + measure.Number(*v.Floor)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s %s\t%s\n", said, v.Name, measure.Number(v.Figure), sign, measure.Number(v.Bound), floor)
	}
	tw.Flush()
	fmt.Fprintf(w, "%d of %d met, of %d there are\n", met, len(r.Aims), len(aims))
}
