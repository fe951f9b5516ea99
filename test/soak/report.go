package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
	"github.com/kubeshim/shim/test/soak/ledger"
)

// ratioAim is what the p99 of writes may be of the quiet one's.
const ratioAim = 1.3

const elsewhereSuffix = ", elsewhere"

// run is what one server's soak has measured.
type run struct {
	Server    string          `json:"server"`
	Machine   measure.Machine `json:"machine"`
	Seconds   float64         `json:"seconds"`
	Pods      int             `json:"pods"`
	Nodes     int             `json:"nodes"`
	WriteRate float64         `json:"writes_per_s"`
	Rounds    int             `json:"rounds"`
	Phases    []figures       `json:"phases"`
	Summary   []figures       `json:"summary"` // equal phases put together
	Restart   time.Duration   `json:"restart_ns"`
	Flat      []flat          `json:"flat"`
	Counts    ledger.Counts   `json:"counts"`
	Problems  []string        `json:"problems"`
}

// figures are of one phase, or of equal ones together.
type figures struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Writes  int     `json:"writes"`
	Refused int     `json:"refused"`
	Unknown int     `json:"unknown"`
	latencies
	// Elsewhere: what went on beside the load did so on another server.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Quiet are the writes of the quiet windows next to those of this row, and Ratio
	// the one p99 over the other; Ratios are those of each window.
	Quiet latencies `json:"quiet,omitzero"`
	Ratio float64   `json:"p99_of_quiet,omitempty"`
	// Calm, CalmQuiet, CalmRatio are the same but for the writes that a stall of the
	// disk has met; CalmRatios is of each window.
	Calm       latencies `json:"calm"`
	CalmQuiet  latencies `json:"calm_quiet,omitzero"`
	CalmRatio  float64   `json:"calm_p99_of_quiet,omitempty"`
	CalmRatios []float64 `json:"calm_p99_of_quiet_by_window,omitempty"`
	// Stalled is for how many seconds the disk did, StalledQuiet for how many in the
	// quiet windows.
	Stalled      float64   `json:"stalled_s"`
	StalledQuiet float64   `json:"stalled_quiet_s,omitempty"`
	Gets         latencies `json:"gets"`
	// Probe is what a write and its sync took that the server has no part in, and
	// ProbeQuiet the same in the quiet windows.
	Probe      latencies `json:"probe"`
	ProbeQuiet latencies `json:"probe_quiet,omitzero"`
	// Late is how late the client was, p99.
	Late    time.Duration `json:"client_late_p99_ns"`
	CPU     float64       `json:"server_cores"`
	Written int64         `json:"disk_write_bytes"`
	resourcesUsed
	Note string `json:"note,omitempty"`
	// Parts are what the window consists of, where it is not the same all through,
	// without what stalls of the disk have met.
	Parts []part `json:"parts,omitempty"`
	// OfFill is the quota's p99 to that of the same fill without it.
	OfFill float64 `json:"p99_of_fill,omitempty"`
}

// part is a part of a window.
type part struct {
	Name   string `json:"name"`
	Writes int    `json:"writes"`
	latencies
	Ratio float64 `json:"p99_of_quiet,omitempty"`
}

// flat compares the last rounds of everything together with the first ones.
type flat struct {
	What  string  `json:"what"`
	First int64   `json:"first_bytes"`
	Last  int64   `json:"last_bytes"`
	Max   float64 `json:"max_ratio"`
}

func (f flat) ratio() float64 { return float64(f.Last) / float64(max(f.First, 1)) }
func (f flat) ok() bool       { return f.ratio() <= f.Max }

func figuresOf(name string, recorders ...*recorder) figures {
	f := figures{Name: name, latencies: quantiles(writesOf(recorders...))}
	var reads, late []time.Duration
	for _, r := range recorders {
		r.mu.Lock()
		f.Writes += len(r.writes)
		f.Refused += r.refused
		f.Unknown += r.unknown
		reads, late = append(reads, r.reads...), append(late, r.late...)
		r.mu.Unlock()
	}
	f.Gets, f.Late, f.Probe = quantiles(reads), quantiles(late).P99, quantiles(syncsOf(recorders...))
	calm, stalled := calmOf(recorders...)
	f.Calm, f.Stalled = quantiles(calm), stalled.Seconds()
	names, took := partsOf(recorders...)
	for _, p := range names {
		f.Parts = append(f.Parts, part{Name: p, Writes: len(took[p]), latencies: quantiles(took[p])})
	}
	return f
}

// ratios compares all windows with the quiet ones next to them, and puts equal
// ones together. The recorders are those of the windows.
func (r *run) ratios(recorders []*recorder) {
	for i := range r.Phases {
		r.Phases[i].compare(pick(recorders, r.quietBeside(i)))
	}
	for i, p := range r.Phases {
		same := func(f figures) bool { return f.Name == p.Name && f.Elsewhere == p.Elsewhere }
		if slices.ContainsFunc(r.Phases[:i], same) {
			continue
		}
		var own, calm []int
		for j, q := range r.Phases {
			if same(q) {
				own, calm = append(own, j), append(calm, r.quietBeside(j)...)
			}
		}
		slices.Sort(calm)
		f := r.sum(own, pick(recorders, own))
		f.compare(pick(recorders, slices.Compact(calm)))
		r.Summary = append(r.Summary, f)
	}
	if fill, ok := r.row(fillAlone, false); ok {
		for i := range r.Summary {
			if f := &r.Summary[i]; f.Name == quotaCleared {
				f.OfFill = float64(f.Calm.P99) / float64(max(fill.Calm.P99, 1))
			}
		}
	}
}

func pick(recorders []*recorder, indexes []int) (some []*recorder) {
	for _, i := range indexes {
		some = append(some, recorders[i])
	}
	return some
}

// quietBeside are the indexes of the quiet windows next to a window; none if it
// is one itself.
func (r *run) quietBeside(i int) (beside []int) {
	if r.Phases[i].Name == quiet {
		return nil
	}
	for _, step := range []int{-1, 1} {
		for j := i + step; j >= 0 && j < len(r.Phases); j += step {
			if r.Phases[j].Name == quiet {
				beside = append(beside, j)
				break
			}
		}
	}
	return beside
}

// compare sets what is of the quiet windows.
func (f *figures) compare(calm []*recorder) {
	if len(calm) == 0 {
		return
	}
	f.Quiet, f.ProbeQuiet = quantiles(writesOf(calm...)), quantiles(syncsOf(calm...))
	f.Ratio = float64(f.P99) / float64(max(f.Quiet.P99, 1))
	left, stalled := calmOf(calm...)
	f.CalmQuiet, f.StalledQuiet = quantiles(left), stalled.Seconds()
	f.CalmRatio = float64(f.Calm.P99) / float64(max(f.CalmQuiet.P99, 1))
	for i, p := range f.Parts {
		f.Parts[i].Ratio = float64(p.P99) / float64(max(f.CalmQuiet.P99, 1))
	}
}

// sum puts the windows with these indexes together.
func (r *run) sum(indexes []int, recorders []*recorder) figures {
	p := r.Phases[indexes[0]]
	f := figuresOf(p.Name, recorders...)
	f.Elsewhere = p.Elsewhere
	var used []resourcesUsed
	var notes []string
	for _, i := range indexes {
		q := r.Phases[i]
		f.Seconds += q.Seconds
		f.CPU += q.CPU * q.Seconds
		f.Written += q.Written
		used = append(used, q.resourcesUsed)
		if q.Note != "" {
			notes = append(notes, q.Note)
		}
		if q.Ratio > 0 {
			f.CalmRatios = append(f.CalmRatios, q.CalmRatio)
		}
	}
	f.CPU /= f.Seconds
	f.resourcesUsed = medianOf(used)
	f.Note = strings.Join(notes, "; ")
	return f
}

// flatness compares the medians of the last third of the rounds with those of
// the first.
func (r *run) flatness(most float64) {
	var rounds []resourcesUsed
	for _, p := range r.Phases {
		if p.Name == together && !p.Elsewhere {
			rounds = append(rounds, p.resourcesUsed)
		}
	}
	if len(rounds) < 2 {
		return
	}
	third := max(len(rounds)/3, 1)
	first, last := medianOf(rounds[:third]).flat(), medianOf(rounds[len(rounds)-third:]).flat()
	for _, what := range []string{"RSS", "heap", "disk", "log"} {
		r.Flat = append(r.Flat, flat{what, first[what], last[what], most})
	}
}

// failed says why the run is no good: what was lost, or grew. Latencies are for
// the reader to judge.
func (r *run) failed() (why []string) {
	why = append(why, r.Problems...)
	for _, f := range r.Flat {
		if !f.ok() {
			why = append(why, fmt.Sprintf("%s is not flat: %d MB in the first rounds, %d MB in the last", f.What, f.First>>20, f.Last>>20))
		}
	}
	return why
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1e3) }

func mb(n int64) string { return measure.Number(float64(n) / 1e6) }

func (f figures) title() string {
	if f.Elsewhere {
		return f.Name + elsewhereSuffix
	}
	return f.Name
}

func (f figures) String() string {
	return fmt.Sprintf("%-34s %5.1f s %6d writes, p50 %s, p99 %s (%s but for %.2f s of stalls), p99.9 %s, longest %s ms; gets p99 %s; disk p50 %s, p99 %s; late %s; %.2f cores; RSS %s, heap %s, log %s, db %s (%s) MB; refused %d; %s",
		f.title(), f.Seconds, f.Writes, ms(f.P50), ms(f.P99), ms(f.Calm.P99), f.Stalled, ms(f.P999), ms(f.Max), ms(f.Gets.P99), ms(f.Probe.P50), ms(f.Probe.P99), ms(f.Late), f.CPU,
		mb(f.RSS), mb(f.Heap), mb(f.WAL), mb(f.DB), mb(f.InUse), f.Refused, f.Note)
}

// report is all runs.
type report []*run

func (r report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func readReport(path string) (r report, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// table is the README's.
func (r report) table() measure.Table { return measure.Table{Name: "soak", Write: r.markdown} }

// print writes what the README shows, and the judgement.
func (r report) print(w io.Writer) {
	r.markdown(w)
	for _, x := range r {
		fmt.Fprintf(w, "\n%s: %d writes acknowledged, %d unknown, %d revisions, %d events, %d watches, %d gets and %d lists compared; after kill -9 the first answer came in %d ms\n",
			x.Server, x.Counts.Writes, x.Counts.Unknown, x.Counts.Revisions, x.Counts.Events, x.Counts.Watches, x.Counts.Reads, x.Counts.Lists, x.Restart.Milliseconds())
		for _, f := range x.Summary {
			if f.Name != quiet {
				said := "met"
				if f.CalmRatio > ratioAim {
					said = "not met"
				}
				if f.Name == fillAlone {
					said = "(load)"
				}
				fmt.Fprintf(w, "  %-8s p99 %.2f of quiet (at most %.1f), with the disk's stalls %.2f: %s; in windows %s", said, f.CalmRatio, ratioAim, f.Ratio, f.title(), ratios(f.CalmRatios))
				if f.OfFill > 0 {
					fmt.Fprintf(w, "; %.2f of the same fill without a quota", f.OfFill)
				}
				fmt.Fprintln(w)
			}
			for _, p := range f.Parts {
				fmt.Fprintf(w, "           %6d writes %-14s p50 %s, p99 %s ms, %.2f of quiet\n", p.Writes, p.Name+":", ms(p.P50), ms(p.P99), p.Ratio)
			}
		}
		for _, f := range x.Flat {
			fmt.Fprintf(w, "  flat: %s %s MB in the first rounds, %s in the last: %.2f (at most %.2f)\n", f.What, mb(f.First), mb(f.Last), f.ratio(), f.Max)
		}
		for _, why := range x.failed() {
			fmt.Fprintln(w, "  WRONG:", why)
		}
	}
}

// markdown is a row for each disturbance, and columns for each server.
func (r report) markdown(w io.Writer) {
	fmt.Fprint(w, "| beside it |")
	for _, x := range r {
		fmt.Fprintf(w, " %s p50, ms | p99 | quiet p99 | ratio | in windows | elsewhere | of the fill | with stalls: p99 | quiet p99 | ratio | stalled, s | quiet | RSS, MB | on disk, MB |", x.Server)
	}
	fmt.Fprintln(w, "\n|---|"+strings.Repeat("---|", 14*len(r)))
	for _, row := range r[0].Summary {
		if row.Elsewhere {
			continue
		}
		fmt.Fprintf(w, "| %s |", row.Name)
		for _, x := range r {
			f, _ := x.row(row.Name, false)
			fmt.Fprintf(w, " %s | %s | %s | %s |", ms(f.Calm.P50), ms(f.Calm.P99), dash(f.CalmQuiet.P99, ms), dash(f.CalmRatio, ratio))
			fmt.Fprintf(w, " %s | %s | %s |", ratios(f.CalmRatios), x.elsewhere(row.Name), dash(f.OfFill, ratio))
			fmt.Fprintf(w, " %s | %s | %s |", ms(f.P99), dash(f.Quiet.P99, ms), dash(f.Ratio, ratio))
			fmt.Fprintf(w, " %.1f of %.0f | %s | %s | %s |", f.Stalled, f.Seconds, stalledQuiet(f), mb(f.RSS), mb(f.Disk))
		}
		fmt.Fprintln(w)
	}
}

// row is a row of the summary.
func (r *run) row(name string, elsewhere bool) (f figures, ok bool) {
	i := slices.IndexFunc(r.Summary, func(f figures) bool { return f.Name == name && f.Elsewhere == elsewhere })
	if i < 0 {
		return f, false
	}
	return r.Summary[i], true
}

// elsewhere is what the same did to this server that went on on another one.
func (r *run) elsewhere(name string) string {
	f, _ := r.row(name, true)
	return dash(f.CalmRatio, ratio)
}

func stalledQuiet(f figures) string {
	if f.Quiet.P99 == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", f.StalledQuiet)
}

func ratio(x float64) string { return fmt.Sprintf("%.2f", x) }

func ratios(all []float64) string {
	var each []string
	for _, x := range all {
		each = append(each, ratio(x))
	}
	return strings.Join(each, ", ")
}

// dash is for what there is not.
func dash[T comparable](v T, format func(T) string) string {
	if v == *new(T) {
		return ""
	}
	return format(v)
}
