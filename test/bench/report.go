package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kubeshim/shim/test/internal/measure"
)

// report collects the figures of all servers. Units and Figures are by the
// figure's name.
type report struct {
	Machine measure.Machine               `json:"machine"`
	Quick   bool                          `json:"quick,omitempty"`
	Pods    int                           `json:"pods"`
	Leases  int                           `json:"leases"`
	Servers []string                      `json:"servers"`
	Rows    []string                      `json:"rows"`
	Units   map[string]string             `json:"units"`
	Figures map[string]map[string]figures `json:"figures"` // row, server
	Aims    []verdict                     `json:"aims"`
}

func newReport(o options) *report {
	return &report{Machine: measure.ThisMachine(), Quick: o.quick, Pods: o.pods, Leases: o.leases, Servers: o.servers,
		Units: map[string]string{}, Figures: map[string]map[string]figures{}}
}

func readReport(path string) (*report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	r.judge()
	return r, nil
}

func (r *report) add(server, row, unit string, f figures) {
	if r.Figures[row] == nil {
		r.Rows = append(r.Rows, row)
		r.Units[row] = unit
		r.Figures[row] = map[string]figures{}
	}
	r.Figures[row][server] = f
}

// print writes the full table, the ratios and the aims.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, %s; kernel %s, %s; %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Memory, r.Machine.Kernel, r.Machine.Go, r.Machine.Date)
	fmt.Fprintf(w, "%d pods of %d bytes, %d node leases of %d bytes, %d connections, %d requests in flight where nothing else is said\n\n",
		r.Pods, podBytes, r.Leases, leaseBytes, connections, inFlight)
	r.printFigures(w)
	fmt.Fprintln(w)
	r.printRatios(w)
	r.printNotes(w)
	r.printAims(w)
}

func (r *report) printFigures(w io.Writer) {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "row\tserver\tfigure\tunit\tops/s\tp50 ms\tp99 ms\tmax ms\tswitches/op\tcalls/op\tclient cores\twritten MB\tpeak RSS MB")
	for _, row := range r.Rows {
		for _, s := range r.Servers {
			f, ok := r.Figures[row][s]
			if !ok {
				continue
			}
			fmt.Fprintf(tw, "%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row, s, f.Value, r.Units[row],
				orDash("%.0f", f.Rate), ms(f.P50), ms(f.P99), ms(f.Max), orDash("%.2f", perOp(f.Switches, f.Ops)), orDash("%.2f", perOp(f.Calls, f.Ops)),
				orDash("%.2f", f.ClientCPU.Seconds()/max(f.Seconds, 1e-9)), orDash("%.1f", float64(f.Written)/1e6), orDash("%.0f", float64(f.Peak)/1e6))
		}
	}
	tw.Flush()
}

// printRatios writes what shim's figures are of etcd's and of the floor's.
func (r *report) printRatios(w io.Writer) {
	if !slices.Contains(r.Servers, "shim") {
		return
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "row\tunit\t"+strings.Join(r.Servers, "\t")+"\tshim / etcd\tshim / floor")
	for _, row := range r.Rows {
		fmt.Fprintf(tw, "%s\t%s", row, r.Units[row])
		for _, s := range r.Servers {
			fmt.Fprintf(tw, "\t%s", r.figure(row, s))
		}
		fmt.Fprintf(tw, "\t%s\t%s\n", r.ratio(row, "shim", "etcd"), r.ratio(row, "shim", "floor"))
	}
	tw.Flush()
}

// printNotes writes what must be known to read a figure.
func (r *report) printNotes(w io.Writer) {
	head := "\nnotes\n"
	for _, row := range r.Rows {
		for _, s := range r.Servers {
			if f := r.Figures[row][s]; f.Note != "" || f.Late > 10*time.Millisecond {
				note := f.Note
				if f.Late > 10*time.Millisecond {
					note = strings.TrimSuffix(fmt.Sprintf("the client was late: p99 %s ms; %s", ms(f.Late), note), "; ")
				}
				fmt.Fprintf(w, "%s  %s, %s: %s\n", head, row, s, note)
				head = ""
			}
		}
	}
}

// figure is a server's figure of a row as the tables write it.
func (r *report) figure(row, server string) string {
	f, ok := r.Figures[row][server]
	if !ok {
		return "-"
	}
	return measure.Number(f.Value)
}

func (r *report) ratio(row, a, b string) string {
	x, okA := r.Figures[row][a]
	y, okB := r.Figures[row][b]
	if !okA || !okB || y.Value <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", x.Value/y.Value)
}

func perOp(n int64, ops int) float64 { return float64(n) / float64(max(ops, 1)) }

func orDash(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func ms(d time.Duration) string { return orDash("%.2f", float64(d.Microseconds())/1e3) }

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
