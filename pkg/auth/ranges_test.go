package auth

import (
	"bytes"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"pgregory.net/rapid"
)

// genKey draws a key from few, so that ranges meet.
func genKey() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00c")), 1, 3, -1)
}

// genEnd draws a range end behind a key, none, or the open one.
func genEnd(t *rapid.T, key string) string {
	switch end := genKey().Draw(t, "end"); rapid.IntRange(0, 3).Draw(t, "kind of end") {
	case 0:
		return ""
	case 1:
		return "\x00"
	default:
		if end <= key {
			return key + end
		}
		return end
	}
}

func holds(key, end, x string) bool {
	switch end {
	case "":
		return x == key
	case "\x00":
		return x >= key
	}
	return x >= key && x < end
}

// TestCover: permissions of several roles, in any order, give a range if and only if each key of it is within one. Between two neighbours of
// all the borders there are the answer is the same for all keys, so the borders are enough to look at.
func TestCover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var several []ranges
		var all []*authpb.Permission
		var borders []string
		for range rapid.IntRange(0, 3).Draw(t, "roles") {
			var ps []*authpb.Permission
			for range rapid.IntRange(0, 5).Draw(t, "permissions") {
				key := genKey().Draw(t, "key")
				end := genEnd(t, key)
				typ := rapid.SampledFrom([]authpb.Permission_Type{reads, writes, both}).Draw(t, "type")
				ps = append(ps, &authpb.Permission{PermType: typ, Key: []byte(key), RangeEnd: []byte(end)})
				borders = append(borders, key, key+"\x00", end)
			}
			all = append(all, ps...)
			merged := merge(ps, reads)
			for i := 1; i < len(merged); i++ {
				if merged[i-1].to == nil || bytes.Compare(merged[i-1].to, merged[i].from) >= 0 {
					t.Fatalf("ranges overlap or touch: %q", merged)
				}
			}
			several = append(several, merged)
		}
		key := genKey().Draw(t, "asked key")
		end := genEnd(t, key)
		borders = append(borders, key)
		want := true
		for _, x := range borders {
			if x != "" && holds(key, end, x) {
				want = want && slices.ContainsFunc(all, func(p *authpb.Permission) bool {
					return p.PermType != writes && holds(string(p.Key), string(p.RangeEnd), x)
				})
			}
		}
		if got := cover(several, []byte(key), []byte(end)); got != want {
			t.Fatalf("%q to %q of %v: %v", key, end, all, got)
		}
	})
}
