package script

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// requests splits a directive's input into one text per request.
func requests(input string) []string {
	var all []string
	for _, line := range strings.Split(input, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		isContinued := line[0] == ' ' || line[0] == '\t'
		if isContinued && len(all) > 0 {
			all[len(all)-1] += "\n" + line
			continue
		}
		all = append(all, line)
	}
	return all
}

var macro = regexp.MustCompile(`\$\{i(?::(\d+))?\}|\$\{(.+?)\*(\d+)\}|\$([A-Za-z]\w*)`)

// expand replaces the macros of one request; round counts from 1.
func expand(text string, round int, leases map[string]int64, members map[string]uint64) (string, error) {
	var bad error
	out := macro.ReplaceAllStringFunc(text, func(m string) string {
		f := macro.FindStringSubmatch(m)
		switch {
		case f[4] != "":
			if id, ok := leases[f[4]]; ok {
				return strconv.FormatInt(id, 10)
			}
			id, ok := members[f[4]]
			if !ok {
				bad = fmt.Errorf("no lease and no member is named %s", m)
			}
			return strconv.FormatUint(id, 10)
		case f[2] != "":
			n, err := strconv.Atoi(f[3])
			if err != nil {
				bad = err
			}
			return strings.Repeat(f[2], n)
		}
		width, _ := strconv.Atoi("0" + f[1])
		return fmt.Sprintf("%0*d", width, round)
	})
	return out, bad
}
