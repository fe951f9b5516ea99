package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// The flag.Value types that etcd has beside the standard library's. They parse
// and fail as etcd's do.

// urlsValue is a comma-separated list of distinct URLs, sorted. An empty value
// leaves it as it was.
type urlsValue struct{ urls *[]url.URL }

func (v urlsValue) String() string {
	if v.urls == nil {
		return ""
	}
	return joinURLs(*v.urls)
}

func (v urlsValue) Set(s string) error {
	if s == "" {
		return nil
	}
	urls, err := parseURLs(s)
	if err != nil {
		return err
	}
	*v.urls = urls
	return nil
}

func parseURLs(s string) ([]url.URL, error) {
	urls, err := types.NewURLs(strings.Split(s, ","))
	if err != nil {
		return nil, err
	}
	return slices.CompactFunc(urls, func(a, b url.URL) bool { return a.String() == b.String() }), nil
}

func joinURLs(urls []url.URL) string { return strings.Join(urlStrings(urls), ",") }

func urlStrings(urls []url.URL) []string { return types.URLs(urls).StringSlice() }

// bytesValue is a number of bytes, plain or with a unit: 64MiB, 1.5GB.
type bytesValue struct{ bytes *int64 }

// byteUnits are in the order in which they are looked for.
var byteUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

func (v bytesValue) String() string {
	if v.bytes == nil {
		return ""
	}
	return strconv.FormatInt(*v.bytes, 10)
}

func (v bytesValue) Set(s string) error {
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if n *= u.bytes; err != nil || n < 0 || !(n < 1<<62) {
			return fmt.Errorf("%q is not a number of bytes, as 64MiB", s)
		}
		*v.bytes = int64(n)
		return nil
	}
	return nil // the empty suffix fits all
}

// originsValue is a comma-separated set of URLs, or "*".
type originsValue struct{ origins *[]string }

func (v originsValue) String() string { return setValue{v.origins}.String() }

func (v originsValue) Set(s string) error {
	if s == "*" {
		*v.origins = []string{s}
		return nil
	}
	urls, err := parseURLs(s)
	if err != nil {
		return err
	}
	*v.origins = urlStrings(urls)
	return nil
}

// setValue is a comma-separated set of strings, sorted.
type setValue struct{ set *[]string }

func (v setValue) String() string {
	if v.set == nil {
		return ""
	}
	return strings.Join(*v.set, ",")
}

func (v setValue) Set(s string) error {
	*v.set = splitSet(s)
	return nil
}

func splitSet(s string) []string {
	return slices.Compact(slices.Sorted(slices.Values(strings.Split(s, ","))))
}

// listValue is a comma-separated list of strings in the order given.
type listValue struct{ list *[]string }

func (v listValue) String() string {
	if v.list == nil {
		return ""
	}
	return strings.Join(*v.list, ",")
}

func (v listValue) Set(s string) error {
	*v.list = strings.Split(s, ",")
	return nil
}

// uint32Value is a number of 32 bits.
type uint32Value struct{ n *uint32 }

func (v uint32Value) String() string {
	if v.n == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*v.n), 10)
}

func (v uint32Value) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return err
	}
	*v.n = uint32(n)
	return nil
}

// choiceValue is one of a few words.
type choiceValue struct {
	word  *string
	words []string
}

func (v choiceValue) String() string {
	if v.word == nil {
		return ""
	}
	return *v.word
}

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return errors.New("invalid value")
	}
	*v.word = s
	return nil
}

// choicesValue is any number of a few words; what is chosen is not kept.
type choicesValue struct{ words []string }

func (v choicesValue) String() string { return "" }

func (v choicesValue) Set(s string) error {
	for w := range strings.SplitSeq(s, ",") {
		if !slices.Contains(v.words, w) {
			return fmt.Errorf("invalid value %q", w)
		}
	}
	return nil
}

// goneValue is a flag that etcd itself has ignored for long, with or without a
// value.
type goneValue struct{}

func (goneValue) String() string   { return "" }
func (goneValue) Set(string) error { return nil }
func (goneValue) IsBoolFlag() bool { return true }

var (
	_ flag.Value = urlsValue{}
	_ flag.Value = originsValue{}
	_ flag.Value = setValue{}
	_ flag.Value = listValue{}
	_ flag.Value = uint32Value{}
	_ flag.Value = choiceValue{}
	_ flag.Value = choicesValue{}
	_ flag.Value = goneValue{}
)
