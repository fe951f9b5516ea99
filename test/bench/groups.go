package main

import (
	"context"
	"slices"
)

// row is one measurement; it adds one or more figures to the report.
type row struct {
	name string
	run  func(context.Context, *dataset) error
	// settle: begin when the server has stopped writing to disk.
	settle bool
	// ends: the row ends processes, so there is no profile of it.
	ends bool
	// skip are the servers that cannot answer: the floor stores nothing, kine does
	// not defragment.
	skip []string
}

// group is a data set and the rows that run on it, in this order, each on all
// servers in turn. The first row fills the data set and always runs.
type group struct {
	name, suffix string
	pods, leases int
	members      int // that each server is made of; 0 is one
	servers      []string
	full         bool // left out of a quick run
	rows         []row
}

func (g group) size() int { return max(g.members, 1) }

var everyone = []string{"floor", "etcd", "kine", "shim"}

// groups are all measurements. pods overrides the size of the first group.
func groups(pods, leases int) []group {
	return []group{
		{name: "20k", pods: pods, leases: leases, servers: everyone, rows: []row{
			{name: "create", run: rowCreate, settle: true},
			{name: "update", run: rowUpdate, settle: true},
			{name: "get", run: rowGet, settle: true},
			{name: "count", run: rowCount},
			{name: "pages", run: rowPages},
			{name: "list", run: rowList},
			{name: "stream", run: rowStream},
			{name: "watch", run: rowWatch},
			{name: "watch-prefixes", run: rowWatchPrefixes},
			{name: "watch-idle", run: rowWatchIdle},
			{name: "watch-paced", run: rowWatchPaced, settle: true},
			{name: "idle", run: rowIdle, settle: true},
			{name: "compact", run: rowCompact, skip: []string{"floor"}},
			{name: "defrag", run: rowDefrag, settle: true, skip: []string{"floor", "kine"}},
			{name: "disk", run: rowDisk, settle: true, skip: []string{"floor"}},
			{name: "restart", run: rowRestart, ends: true, skip: []string{"floor"}},
		}},
		{name: "flight", pods: 5_000, servers: without("kine"), rows: []row{
			{name: "fill-flight", run: rowFill},
			{name: "flight", run: rowFlights, settle: true},
		}},
		{name: "values", pods: 100, servers: without("kine"), full: true, rows: []row{
			{name: "fill-values", run: rowFill},
			{name: "values", run: rowValues, settle: true},
		}},
		{name: "200k", suffix: ", 200k", pods: 200_000, servers: without("kine"), full: true, rows: []row{
			{name: "create-200k", run: rowCreate},
			{name: "memory-200k", run: rowMemory, settle: true, skip: []string{"floor"}},
			{name: "disk-200k", run: rowDisk, skip: []string{"floor"}},
			{name: "get-200k", run: rowGet},
			{name: "count-200k", run: rowCount},
			{name: "pages-200k", run: rowPages},
			{name: "list-200k", run: rowList},
			{name: "stream-200k", run: rowStream},
			{name: "restart-200k", run: rowRestart, settle: true, ends: true, skip: []string{"floor"}},
		}},
		{name: "members", suffix: ", 3 members", pods: pods, leases: leases, members: 3, servers: []string{"etcd", "shim"}, full: true, rows: []row{
			{name: "create-members", run: onLeader(rowCreate)},
			{name: "update-members", run: rowUpdateMembers, settle: true},
			{name: "get-members", run: rowGetMembers, settle: true},
			{name: "idle-members", run: onLeader(rowIdle), settle: true},
			{name: "kill-leader", run: rowKill, ends: true},
			{name: "stop-leader", run: rowStop, ends: true},
		}},
		{name: "1m", suffix: ", 1M", pods: 1_000_000, servers: []string{"floor", "shim"}, full: true, rows: []row{
			{name: "fill-1m", run: rowTiny},
			{name: "count-1m", run: rowCount, settle: true},
		}},
	}
}

func without(name string) []string {
	return slices.DeleteFunc(slices.Clone(everyone), func(s string) bool { return s == name })
}

// options are what the flags say.
type options struct {
	servers      []string
	only         []string // rows and groups; empty is all
	pods, leases int
	quick        bool
	profile      string
}

// plan is what of the groups is to run.
func plan(o options) (run []group) {
	for _, g := range groups(o.pods, o.leases) {
		whole := slices.Contains(o.only, g.name) || len(o.only) == 0 && !(o.quick && g.full)
		fill := g.rows[0]
		g.rows = slices.DeleteFunc(g.rows, func(r row) bool {
			return !whole && !slices.Contains(o.only, r.name)
		})
		g.servers = slices.DeleteFunc(slices.Clone(o.servers), func(s string) bool { return !slices.Contains(g.servers, s) })
		if len(g.rows) == 0 || len(g.servers) == 0 {
			continue
		}
		if g.rows[0].name != fill.name {
			g.rows = slices.Insert(g.rows, 0, fill)
		}
		run = append(run, g)
	}
	return run
}

// unknown answers the names of o.only that no row and no group has.
func unknown(o options) []string {
	return slices.DeleteFunc(slices.Clone(o.only), func(name string) bool {
		return slices.ContainsFunc(groups(o.pods, o.leases), func(g group) bool {
			return g.name == name || slices.ContainsFunc(g.rows, func(r row) bool { return r.name == name })
		})
	})
}
