package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const verbStatus = snapshotVerb("shim snapshot status")

// statusFlags are etcdutl's.
type statusFlags struct{ format string }

func (f *statusFlags) set() *flag.FlagSet {
	fs := flag.NewFlagSet(string(verbStatus), flag.ContinueOnError)
	for _, name := range []string{"w", "write-out"} {
		fs.StringVar(&f.format, name, "simple", "The form of the output: simple, table, json or fields.")
	}
	return fs
}

func snapshotStatus(args []string, stdout, stderr io.Writer) int {
	var f statusFlags
	file, code, ok := parseFile(f.set(), args, stdout, stderr)
	if !ok {
		return code
	}
	print, ok := statusPrinters[f.format]
	if !ok {
		fmt.Fprintf(stderr, "%s: unsupported output format %q\n", verbStatus, f.format)
		return exitUsage
	}
	s, err := raftstore.SnapshotStatus(vfs.OS, file)
	if err != nil {
		return verbStatus.fail(stderr, err)
	}
	fmt.Fprint(stdout, print(s))
	return exitOK
}

// statusPrinters give what etcdutl prints, byte for byte.
var statusPrinters = map[string]func(backend.Status) string{
	"simple": func(s backend.Status) string { return strings.Join(statusRow(s), ", ") + "\n" },
	"table":  func(s backend.Status) string { return table(statusHeader, statusRow(s)) },
	"json": func(s backend.Status) string {
		b, err := json.Marshal(s)
		if err != nil {
			panic(fmt.Sprintf("marshal %+v: %v", s, err))
		}
		return string(b) + "\n"
	},
	"fields": func(s backend.Status) string {
		return fmt.Sprintf("\"Hash\" : %d\n\"Revision\" : %d\n\"Keys\" : %d\n\"Size\" : %d\n\"Version\" : %s\n",
			s.Hash, s.Revision, s.TotalKey, s.TotalSize, s.Version)
	},
}

var statusHeader = []string{"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"}

func statusRow(s backend.Status) []string {
	return []string{fmt.Sprintf("%x", s.Hash), fmt.Sprint(s.Revision), fmt.Sprint(s.TotalKey), humanBytes(s.TotalSize), s.Version}
}

// humanBytes has powers of 1000, and one digit behind the point below ten of a unit.
func humanBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for units := int64(1000); n >= units && unit < 6; units *= 1000 {
		value, unit = float64(n)/float64(units), unit+1
	}
	value = float64(int64(value*10+0.5)) / 10
	if value < 10 {
		return fmt.Sprintf("%.1f %cB", value, " kMGTPE"[unit])
	}
	return fmt.Sprintf("%.0f %cB", value, " kMGTPE"[unit])
}

// table draws one row below a header, in boxes: the header in the middle of its box, the row at the right of its.
func table(header, row []string) string {
	var b strings.Builder
	widths := make([]int, len(header))
	for i := range header {
		widths[i] = max(utf8.RuneCountInString(header[i]), utf8.RuneCountInString(row[i]))
	}
	line := func(left, middle, right string) {
		for i, w := range widths {
			b.WriteString([]string{middle, left}[max(0, 1-i)] + strings.Repeat("─", w+2))
		}
		b.WriteString(right + "\n")
	}
	cells := func(texts []string, pad func(free int) int) {
		for i, w := range widths {
			free := w - utf8.RuneCountInString(texts[i])
			fmt.Fprintf(&b, "│ %s%s%s ", strings.Repeat(" ", pad(free)), texts[i], strings.Repeat(" ", free-pad(free)))
		}
		b.WriteString("│\n")
	}
	line("┌", "┬", "┐")
	cells(header, func(free int) int { return free / 2 })
	line("├", "┼", "┤")
	cells(row, func(free int) int { return free })
	line("└", "┴", "┘")
	return b.String()
}
