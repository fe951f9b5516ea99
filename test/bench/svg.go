package main

import (
	"bytes"
	"fmt"
	"html"

	"github.com/kubeshim/shim/test/internal/measure"
)

// The picture: for each row a group of bars, one per server, in units of what
// etcd needs; the line at 1 is etcd. Bars beyond the right edge are cut, their
// labels say the figure. Colours are chosen to be told apart, in light and in
// dark, by people who see few colours too.
const (
	svgWidth   = 860
	svgLeft    = 330 // where bars begin
	svgEtcd    = 250 // length of a bar of etcd's size
	svgLongest = 375
	svgBar     = 10
	svgGap     = 8 // between groups
	svgTop     = 62
)

const svgStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}
.small,.figure{font-size:10px;fill:#59636e}
.axis{stroke:#59636e;stroke-dasharray:3 3}
.floor{fill:#9a9fa6}.etcd{fill:#e69f00}.kine{fill:#cc79a7}.shim{fill:#0072b2}
@media(prefers-color-scheme:dark){
text{fill:#f0f6fc}.small,.figure{fill:#9198a1}.axis{stroke:#9198a1}
.floor{fill:#7d848c}.shim{fill:#56b4e9}
}
</style>
`

// svg draws the rows of headlines that have a picture and a figure of etcd.
func (r *report) svg() []byte {
	var body bytes.Buffer
	y := svgTop
	for _, h := range headlines {
		etcd := r.Figures[h.row]["etcd"].Value
		if !h.picture || etcd <= 0 {
			continue
		}
		y = r.svgRow(&body, y, h.row, h.words, etcd)
	}
	height := y + 24
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="What servers need, relative to etcd">`+"\n",
		svgWidth, height, svgWidth, height)
	out.WriteString(svgStyle)
	fmt.Fprintf(&out, `<text class="title" x="8" y="22">What a server needs, relative to etcd; shorter is better</text>`+"\n")
	x := svgLeft
	for _, s := range r.order() {
		fmt.Fprintf(&out, `<rect class="%s" x="%d" y="35" width="10" height="10"/><text x="%d" y="44">%s</text>`+"\n", s, x, x+15, titles[s])
		x += 105
	}
	fmt.Fprintf(&out, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n", svgLeft+svgEtcd, svgLeft+svgEtcd, svgTop-6, y)
	out.Write(body.Bytes())
	fmt.Fprintf(&out, `<text class="small" x="8" y="%d">%s</text>`+"\n</svg>\n", height-8,
		html.EscapeString(fmt.Sprintf("make bench, %s: %s, %d cores that client and server share.", r.Machine.Date, r.Machine.CPU, r.Machine.Cores)))
	return out.Bytes()
}

// svgRow draws one group and answers where the next one begins.
func (r *report) svgRow(w *bytes.Buffer, y int, row, words string, etcd float64) int {
	begin := y
	var bars bytes.Buffer
	for _, s := range r.order() {
		f, ok := r.Figures[row][s]
		if !ok {
			continue
		}
		size := f.Value / etcd
		length := min(max(size*svgEtcd, 1), svgLongest)
		label := measure.Number(f.Value)
		if s != "etcd" {
			label += fmt.Sprintf(" (%s×)", measure.Number(size))
		}
		if size*svgEtcd > svgLongest {
			label = "… " + label
		}
		fmt.Fprintf(&bars, `<rect class="%s" x="%d" y="%d" width="%.0f" height="%d"/><text class="figure" x="%.0f" y="%d">%s</text>`+"\n",
			s, svgLeft, y, length, svgBar-1, svgLeft+length+4, y+svgBar-2, label)
		y += svgBar
	}
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", svgLeft-10, (begin+y)/2+4, html.EscapeString(words))
	w.Write(bars.Bytes())
	return y + svgGap
}
