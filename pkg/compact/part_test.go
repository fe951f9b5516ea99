package compact

import (
	"testing"
	"time"
)

func TestNextPart(t *testing.T) {
	for _, c := range []struct {
		name string
		in   PartStats
		want time.Duration
	}{
		{"alone", PartStats{Took: 10 * time.Millisecond, Written: 1 << 20}, 90 * time.Millisecond},
		{"somebody waits", PartStats{Took: 10 * time.Millisecond, Written: 1 << 20, Awaited: true}, 20 * time.Millisecond},
		{"a slow disk", PartStats{Took: time.Second, Written: 1 << 20}, 200 * time.Millisecond},
		{"a slow disk, and somebody waits", PartStats{Took: time.Second, Written: 1 << 20, Awaited: true}, 200 * time.Millisecond},
		{"the log grows half as fast", PartStats{Took: 10 * time.Millisecond, Written: 2 << 20, Grown: 1 << 20}, 90 * time.Millisecond},
		{"the log grows faster", PartStats{Took: 10 * time.Millisecond, Written: 2<<20 - 1, Grown: 1 << 20}, 0},
		{"no time to lose", PartStats{Took: 10 * time.Millisecond, Written: 1 << 20, Pressed: true}, 0},
		{"the log has given back", PartStats{Took: 10 * time.Millisecond, Written: 1, Grown: -1}, 90 * time.Millisecond},
	} {
		bytes, pause := CheckpointPolicy{PartBytes: 100}.NextPart(c.in)
		if pause != c.want || (bytes == 400) != (c.want == 0) || bytes != 100 && bytes != 400 {
			t.Errorf("%s: %d bytes, %v, want %v", c.name, bytes, pause, c.want)
		}
	}
}
