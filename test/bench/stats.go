package main

import (
	"slices"
	"time"
)

// quantile answers the smallest value that at least the share q of the sorted
// values does not exceed (the nearest rank); 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(q * float64(len(sorted)))
	if float64(rank) < q*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// latencies fills in p50, p99 and max; it sorts took.
func (f *figures) latencies(took []time.Duration) {
	slices.Sort(took)
	f.P50, f.P99, f.Max = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
}
