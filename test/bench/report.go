package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// report collects the figures of all servers, in the order measured.
type report struct {
	Pods    int                           `json:"pods"`
	Leases  int                           `json:"leases"`
	Servers []string                      `json:"servers"`
	Rows    []string                      `json:"rows"`
	Units   map[string]string             `json:"units"`
	Figures map[string]map[string]figures `json:"figures"` // row, server
}

func newReport(pods, leases int) *report {
	return &report{Pods: pods, Leases: leases, Units: map[string]string{}, Figures: map[string]map[string]figures{}}
}

func (r *report) add(server, row, unit string, f figures) {
	if len(r.Servers) == 0 || r.Servers[len(r.Servers)-1] != server {
		r.Servers = append(r.Servers, server)
	}
	if r.Figures[row] == nil {
		r.Rows = append(r.Rows, row)
		r.Units[row] = unit
		r.Figures[row] = map[string]figures{}
	}
	r.Figures[row][server] = f
}

// print writes the table: for each row and server its figure and what stands
// behind it, then shim's ratios to etcd and to the floor.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%d pods of %d bytes, %d node leases of %d bytes, %d connections, %d requests in flight\n\n",
		r.Pods, podBytes, r.Leases, leaseBytes, connections, inFlight)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "row\tserver\tfigure\tunit\trate/s\tp50 ms\tp99 ms\tmax ms\tdisk B/op\tpeak RSS MB")
	for _, row := range r.Rows {
		for _, s := range r.Servers {
			f, ok := r.Figures[row][s]
			if !ok {
				continue
			}
			perOp := int64(0)
			if f.Ops > 0 {
				perOp = f.Written / int64(f.Ops)
			}
			fmt.Fprintf(tw, "%s\t%s\t%.2f\t%s\t%.0f\t%s\t%s\t%s\t%d\t%d\n", row, s, f.Value, r.Units[row],
				f.Rate, ms(f.P50), ms(f.P99), ms(f.Max), perOp, f.Peak/1e6)
		}
	}
	tw.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(tw, "row\tshim / etcd\tshim / floor")
	for _, row := range r.Rows {
		shim, ok := r.Figures[row]["shim"]
		if ok {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", row, ratio(shim, r.Figures[row], "etcd"), ratio(shim, r.Figures[row], "floor"))
		}
	}
	tw.Flush()
}

func ratio(shim figures, all map[string]figures, to string) string {
	other, ok := all[to]
	if !ok || other.Value == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", shim.Value/other.Value)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1e3) }

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
