package migrate

import (
	"fmt"
	"os"
	"strings"
)

// block is some commands of a page.
type block struct {
	line    int    // in the page
	members string // one or three
	where   string // first, each or furthest; of one member: the alternative
	script  string
}

const fence = "```"

// readPage answers the marked blocks of a page, and the names that the others
// set.
func readPage(file string) (blocks []block, names []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var mark []string
	var open *block
	for i, line := range strings.Split(string(text), "\n") {
		inner, isMark := strings.CutPrefix(line, "<!-- run ")
		switch {
		case open != nil && line == fence:
			if mark == nil {
				names = append(names, assigned(open.script)...)
			} else {
				blocks = append(blocks, *open)
			}
			open, mark = nil, nil
		case open != nil:
			open.script += line + "\n"
		case isMark:
			mark = append(strings.Fields(strings.TrimSuffix(inner, "-->")), "")
		case strings.HasPrefix(line, fence):
			open = &block{line: i + 1}
			if mark != nil {
				open.members, open.where = mark[0], mark[1]
			}
		case line != "" && mark != nil:
			return nil, nil, fmt.Errorf("%s:%d: no commands behind the mark", file, i+1)
		}
	}
	if open != nil || mark != nil {
		return nil, nil, fmt.Errorf("%s: ends within commands", file)
	}
	return blocks, names, nil
}

// assigned are the names before the = of each line.
func assigned(script string) (names []string) {
	for line := range strings.Lines(script) {
		if name, _, ok := strings.Cut(line, "="); ok {
			names = append(names, name)
		}
	}
	return names
}
